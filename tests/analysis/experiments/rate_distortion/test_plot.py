"""The plane of rate and distortion."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import plotting as plots
from analysis.experiments.rate_distortion.plot import plot_rate_distortion
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.stats.rate_distortion import gaussian_rate
from tests.analysis.experiments.rate_distortion.linear_vae import BETAS, VARIANCE

type Array = np.ndarray[Any, Any]


def test_the_picture_shows_every_fit_and_every_bound(curve: RateDistortion, spectrum: Array, tmp_path: Path) -> None:
    where = np.linspace(curve.distortion.min(), curve.distortion.max(), 50)
    least = np.array([gaussian_rate(spectrum, VARIANCE**0.5, d)[0] for d in where])
    figure = plot_rate_distortion(
        curve.rate,
        curve.distortion,
        rate_se=np.array([point.mean(1, 0)[1] for point in curve.points]),
        labels=[point.label for point in curve.points],
        hull=curve.hull,
        entropy=curve.entropy,
        bound=(where, least),
    )
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {f"beta={beta:g}" for beta in BETAS}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"lower convex hull", "below H - D", "least rate of any code"} < set(names)
    plots.save(figure, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert plot_rate_distortion(np.ones(1), np.ones(1)).axes


def test_the_picture_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(ValueError, match="distortion has 3 entries"):
        plot_rate_distortion(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        plot_rate_distortion(np.array([np.nan]), np.ones(1))
