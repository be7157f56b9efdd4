"""Ranks and probability integral transforms against the uniform distribution, with bands of a calibrated model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import (
    BLUE,
    GREY,
    INK,
    MAX_LEGEND,
    MAX_PANELS,
    RED,
    Array,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)


@styled
def plot_ecdf_difference(
    grid: Array, ecdf: Array, lower: Array, upper: Array, names: Sequence[str] | None = None
) -> Figure:
    """Empirical minus uniform distribution function of ranks or PIT values, with the band of a calibrated model.

    Up to twelve quantities have a panel each; more are laid over one another, and those that leave the band are named.

    Args:
        grid: points in [0, 1], ``(point,)``.
        ecdf: at those points, ``(point, quantity)`` or ``(point,)``.
        lower: of the band of the ECDF, ``(point,)``, as `analysis.stats.ecdf_bands.EcdfBand` has it.
        upper: of that band, ``(point,)``.
        names: of the quantities; ``z[i]`` if not given.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.

    References:
        Säilynoja, Bürkner & Vehtari 2022, Graphical test for discrete uniformity, Statistics and Computing 32,
        sec. 2. arXiv:2103.10522
    """
    points, curves, low, high, outside = banded("grid", grid, "ecdf", ecdf, lower, upper)
    names = names_of(names, len(curves))
    together = len(curves) > MAX_PANELS
    if together:
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        panels = [figure.subplots()] * len(curves)
    else:
        figure, panels = small_multiples(len(curves), 2.0, 1.75, sharex=True, sharey=True)
    for axes in panels[:1] if together else panels:
        axes.fill_between(points, low - points, high - points, color=GREY, alpha=0.28, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
    named = 0
    for axes, curve, name, out in zip(panels, curves, names, outside, strict=True):
        colour, line = (RED, "--") if out else (BLUE, "-")
        if together:
            label = f"{name}, outside" if out and named < MAX_LEGEND else None
            named += bool(out)
            axes.plot(points, curve - points, line, color=colour, linewidth=0.9, alpha=0.9 if out else 0.5, label=label)
        else:
            axes.plot(points, curve - points, line, color=colour)
            axes.set_title(f"{name}: outside" if out else name, color=RED if out else INK)
    if together:
        panels[0].set_title(f"{int(outside.sum())} of {len(curves)} leave the band")
        if named:
            panels[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.supxlabel("value, as a fraction", fontsize=9)
    figure.supylabel("ECDF minus uniform", fontsize=9)
    return figure


def banded(
    x_name: str, x: Any, y_name: str, y: Any, lower: Any, upper: Any
) -> tuple[Array, Array, Array, Array, Array]:
    """Points, curves ``(quantity, point)``, the band, and which curves leave it, from arrays that are checked."""
    points = numbers(x_name, x, "point")
    values = np.asarray(y, dtype=np.float64)
    curves = numbers(y_name, values[:, None] if values.ndim == 1 else values, "point", "quantity").T
    low, high = numbers("lower", lower, "point"), numbers("upper", upper, "point")
    for name, array in ((y_name, curves), ("lower", low), ("upper", high)):
        same_size(name, array, len(points), x_name)
    if (low > high).any():
        raise ValueError(f"lower is above upper at {x_name} = {points[(low > high).argmax()]:g}")
    # Bounds and curves are counts divided by their number; rounding does not take a curve out of its band.
    return points, curves, low, high, ((curves < low - 1e-9) | (curves > high + 1e-9)).any(1)


@styled
def plot_pit(
    pit: Array, *, grid: Array | None = None, lower: Array | None = None, upper: Array | None = None, bins: int = 20
) -> Figure:
    """Probability integral transform of the data: a histogram with 99 % intervals, and the ECDF where a band is given.

    A hump is a predictive that is too wide, a bowl one that is too narrow, a slope one that is biased.

    Args:
        pit: values in [0, 1], any shape; all are pooled.
        grid: points of the band, ``(point,)``.
        lower: of the band of the ECDF, ``(point,)``.
        upper: of that band, ``(point,)``.
        bins: of the histogram.

    Raises:
        ValueError: a value out of [0, 1], or a band without all three of its arrays.

    References:
        Gneiting, Balabdaoui & Raftery 2007, Probabilistic forecasts, calibration and sharpness, JRSS B 69, sec. 3.1.
        doi:10.1111/j.1467-9868.2007.00587.x
    """
    values = numbers("pit", np.ravel(pit), "value")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"pit in [0, 1] required, got [{values.min():g}, {values.max():g}]")
    given = [array is not None for array in (grid, lower, upper)]
    if any(given) and not all(given):
        raise ValueError("the band requires grid, lower and upper, all three")
    figure = Figure(figsize=(7.2 if all(given) else 4.4, 2.6), layout="constrained")
    panels = figure.subplots(1, 2 if all(given) else 1, squeeze=False).ravel()
    uniform_histogram(panels[0], values, np.linspace(0, 1, min(bins, max(len(values) // 5, 2)) + 1))
    panels[0].set(xlabel="PIT", ylabel="elements", title="histogram, 99 % interval of each bin")
    if all(given):
        points = numbers("grid", grid, "point")
        ecdf = np.searchsorted(np.sort(values), points, side="right") / len(values)
        points, curves, low, high, outside = banded("grid", points, "ecdf", ecdf, lower, upper)
        axes = panels[1]
        axes.fill_between(points, low - points, high - points, color=GREY, alpha=0.28, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.plot(points, curves[0] - points, "--" if outside[0] else "-", color=RED if outside[0] else BLUE)
        axes.set(
            xlabel="PIT", ylabel="ECDF minus uniform", title=f"ECDF: {'leaves' if outside[0] else 'within'} its band"
        )
    return figure


def uniform_histogram(axes: Any, values: Array, edges: Array) -> None:
    """A histogram with the interval that 99 % of the bins of uniform values fall in; bins outside are marked."""
    from scipy.stats import binom

    counts, _ = np.histogram(values, edges)
    share = 1 / (len(edges) - 1)
    low, high = binom.ppf([0.005, 0.995], len(values), share)
    axes.axhspan(low, high, color=GREY, alpha=0.28, linewidth=0)
    axes.axhline(len(values) * share, color=GREY, linewidth=0.8)
    outside = (counts < low) | (counts > high)
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.55)
    axes.stairs(counts, edges, color=BLUE, linewidth=0.8)
    centres = (edges[:-1] + edges[1:]) / 2
    axes.plot(centres[outside], counts[outside], "x", color=RED, markersize=5)
    axes.set_ylim(0, max(counts.max(), high) * 1.08)
