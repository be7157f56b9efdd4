"""Pictures of a calibration: coverage against the nominal level, and histograms of ranks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.ecdf import banded, uniform_histogram
from analysis.plotting.style import (
    BLUE,
    GREY,
    MAX_LEGEND,
    MAX_PANELS,
    RED,
    Array,
    names_of,
    numbers,
    small_multiples,
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


@styled
def plot_ranks(ranks: Array, num_ranks: int, names: Sequence[str] | None = None, *, bins: int = 20) -> Figure:
    """Histograms of simulation-based calibration ranks, with the interval that 99 % of uniform bins fall in.

    Args:
        ranks: integers in 0..num_ranks - 1, ``(simulation, quantity)``. At most twelve quantities are shown.
        num_ranks: how many values a rank can take.
        names: of the quantities; ``z[i]`` if not given.
        bins: at most so many; the largest number that divides ``num_ranks``, so that all bins are equally likely.

    Raises:
        ValueError: other shapes, or a rank out of range.

    References:
        Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration, sec. 4.1.
        arXiv:1804.06788
    """
    ranks = numbers("ranks", ranks, "simulation", "quantity")
    if ranks.min() < 0 or ranks.max() > num_ranks - 1:
        raise ValueError(f"ranks in [0, {num_ranks - 1}] required, got [{ranks.min():g}, {ranks.max():g}]")
    names = names_of(names, ranks.shape[1])
    bins = max(count for count in range(1, min(bins, num_ranks) + 1) if num_ranks % count == 0)
    edges = np.linspace(-0.5, num_ranks - 0.5, bins + 1)
    shown = min(ranks.shape[1], MAX_PANELS)
    figure, panels = small_multiples(shown, 2.0, 1.6, sharex=True, sharey=True)
    for index, axes in enumerate(panels):
        uniform_histogram(axes, ranks[:, index], edges)
        axes.set_title(names[index])
    figure.supxlabel("rank", fontsize=9)
    figure.supylabel("simulations", fontsize=9)
    if shown < ranks.shape[1]:
        figure.suptitle(f"the first {shown} of {ranks.shape[1]}")
    return figure
