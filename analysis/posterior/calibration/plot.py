"""Pictures of a calibration: coverage against the nominal level, and histograms of ranks."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.plotting.ecdf import banded
from analysis.plotting.style import (
    BLUE,
    GREY,
    MAX_LEGEND,
    RED,
    Array,
    names_of,
    styled,
)


@styled
def plot_coverage(
    level: Array, coverage: Array, lower: Array, upper: Array, names: Sequence[str] | None = None
) -> Figure:
    """How often intervals of q(z | x) cover the latent that made x, against their nominal level.

    Below the diagonal the guide is too narrow, above it too wide.

    Args:
        level: nominal, in [0, 1], ``(level,)``.
        coverage: share covered, ``(level, quantity)`` or ``(level,)``.
        lower: of the band that a calibrated guide stays in, ``(level,)``.
        upper: of that band, ``(level,)``.
        names: of the quantities; ``z[i]`` if not given.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    figure = _against_nominal(level, coverage, lower, upper, names)
    figure.axes[0].set(xlabel="nominal level of the interval", ylabel="share of latents covered")
    return figure


@styled
def plot_tarp(level: Array, coverage: Array, lower: Array, upper: Array) -> Figure:
    """Expected coverage of balls around random reference points, all latents at once, against the nominal level.

    Args:
        level: credibility level, ``(level,)``.
        coverage: expected coverage, ``(level,)``.
        lower: of the band that a calibrated guide stays in, ``(level,)``.
        upper: of that band, ``(level,)``.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.

    References:
        Lemos et al. 2023, Sampling-based accuracy testing of posterior estimators for general inference, sec. 3.
        arXiv:2302.03026
    """
    figure = _against_nominal(level, coverage, lower, upper, ["all latents"])
    figure.axes[0].set(xlabel="credibility level", ylabel="expected coverage")
    return figure


def _against_nominal(level: Any, coverage: Any, lower: Any, upper: Any, names: Sequence[str] | None) -> Figure:
    points, curves, low, high, outside = banded("level", level, "coverage", coverage, lower, upper)
    names = names_of(names, len(curves))
    figure = Figure(figsize=(5.2, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(points, low, high, color=GREY, alpha=0.28, linewidth=0, label="band if calibrated")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    seen: set[bool] = set()
    for curve, name, out in zip(curves, names, outside, strict=True):
        label: str | None = f"{name}, outside" if out else name
        if len(curves) > MAX_LEGEND:
            label = None if bool(out) in seen else ("outside the band" if out else "inside the band")
            seen.add(bool(out))
        axes.plot(
            points, curve, "--" if out else "-", color=RED if out else BLUE, linewidth=1.1, alpha=0.85, label=label
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
