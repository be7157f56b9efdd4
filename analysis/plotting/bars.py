"""Estimates as bars with their standard errors."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, INK, Array, names_of, numbers, same_size, styled


@styled
def plot_bars(
    names: Sequence[str],
    values: Sequence[float] | Array,
    errors: Sequence[float] | Array | None = None,
    *,
    xlabel: str = "nats per datum, ± one standard error",
) -> Figure:
    """Estimates as horizontal bars with their standard errors.

    Args:
        names: of the estimates.
        values: ``(bar,)``.
        errors: standard errors, ``(bar,)``; NaN where there is none.
        xlabel: what is estimated, and its unit.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    heights = numbers("values", values, "bar")
    names = names_of(names, len(heights))
    error = None if errors is None else numbers("errors", _zero_for_nan(errors), "bar")
    if error is not None:
        same_size("errors", error, len(heights), "values")
    figure = Figure(figsize=(6.6, 0.42 * len(heights) + 0.8), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(heights))[::-1]
    axes.barh(place, heights, height=0.62, color=BLUE, alpha=0.75)
    if error is not None:
        axes.errorbar(heights, place, xerr=error, fmt="none", ecolor=INK, capsize=3, linewidth=1.1)
    ends = np.maximum(heights, 0) + (0 if error is None else error)
    for y, x, height in zip(place, ends, heights, strict=True):
        axes.annotate(f"{height:.3g}", (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    return figure


def _zero_for_nan(errors: Sequence[float] | Array) -> Array:
    given = np.asarray(errors, dtype=np.float64)
    return np.where(np.isnan(given), 0.0, given)
