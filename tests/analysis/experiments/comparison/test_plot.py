"""Plots of variants: every seed is drawn, and what cannot be drawn is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.page import variants_figure
from analysis.experiments.comparison.plot import Forest, plot_agreement, plot_curves, plot_variants
from analysis.plotting import encode
from tests.analysis.experiments.examples import three, variant


def test_pictures_show_every_seed_and_significance() -> None:
    comparison = three()
    left, right = variants_figure(comparison).axes
    assert [text.get_text() for text in left.get_yticklabels()] == list(comparison.labels)
    dots = [
        np.asarray(found.get_offsets())[:, 0] for found in left.collections if np.shape(found.get_offsets())[0] == 9
    ]
    np.testing.assert_allclose(np.sort(dots[0]), np.sort(comparison.estimates.runs["log_px"].ravel()))
    assert right.get_legend_handles_labels()[1] == [
        "95 % interval, seeds and test data", "part of the test data", "each seed", "significant difference",
    ]  # fmt: skip
    assert len(variants_figure(compare_variants(variant("a", -90))).axes) == 1
    levels = Forest(["a"], np.array([[1.0]]), np.array([[0.5, 1.5]]), np.array([0.2]), [False])
    assert "not significant" in plot_variants(levels).axes[0].get_legend_handles_labels()[1]
    curves = plot_curves({"a": [(np.arange(1, 6), np.arange(5.0)), (np.arange(1, 4), np.arange(3.0))]})
    assert [np.size(line.get_xdata()) for line in curves.axes[0].lines] == [5, 3, 3]
    many = plot_curves({str(i): [(np.arange(1, 20), np.arange(19.0) + i)] for i in range(14)})
    assert sum(axes.axison for axes in many.axes) == 14
    none = plot_agreement(["a"], [np.full(3, np.nan)], [np.array([0.2, np.nan, 0.4])])
    drawn = [np.shape(found.get_offsets())[0] for found in none.axes[0].collections if hasattr(found, "get_offsets")]
    assert drawn[:2] == [0, 2]
    for figure in (plot_variants(levels), curves, many, none):
        assert len(encode(figure)[1]) > 1000


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_curves({}), "no training curves"),
        (lambda: plot_curves({"a": []}), "no training curves"),
        (lambda: plot_curves({"a": [(np.arange(3), np.arange(2.0))]}), "the curve of a has 2 entries, epochs has 3"),
        (lambda: plot_agreement(["a", "b"], [np.ones(1)], [np.ones(1)]), "2 names for 1"),
        (lambda: plot_agreement(["a"], [np.ones(1)], []), "1 variants have a CKA and 0 a UDR"),
        (
            lambda: plot_variants(Forest(["a"], np.ones((1, 2)), np.ones((2, 2)), np.ones(1))),
            "intervals has 2 entries, runs has 1",
        ),
        (
            lambda: plot_variants(Forest(["a"], np.full((1, 2), np.nan), np.ones((1, 2)), np.ones(1))),
            "runs holds 2 values that are not finite",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], Figure], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()
