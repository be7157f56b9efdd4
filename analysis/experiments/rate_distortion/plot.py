"""Plot of rate against distortion: fits, their lower convex hull, and the pairs that no code can reach."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, GREY, INK, RED, Array, names_of, numbers, same_size, styled

_SIZE = (6.4, 4.4)
_MARGIN = 0.08
_NUM_ACROSS = 400


@styled
def plot_rate_distortion(
    rate: Array,
    distortion: Array,
    *,
    rate_se: Array | None = None,
    distortion_se: Array | None = None,
    labels: Sequence[str] | None = None,
    hull: Sequence[int] = (),
    entropy: float | None = None,
    bound: tuple[Array, Array] | None = None,
) -> Figure:
    """Rate against distortion of several fits, in nats per datum.

    Points on the hull are filled and joined, others are open. The grey dotted line joins all pairs with the
    R + D of the fit of the highest ELBO. With an entropy, the region below R = H - D is shaded; a bound is a dashed
    line.

    Args:
        rate: ``(fit,)``.
        distortion: ``(fit,)``.
        rate_se: standard errors, ``(fit,)``; bars are two of them long on either side; likewise ``distortion_se``.
        labels: names of the fits, written beside the points.
        hull: numbers of the fits on the lower convex hull, from small distortions to large.
        entropy: of the data, nats.
        bound: distortions and the least rate of any code at each, both ``(point,)``.

    Raises:
        ValueError: no fit, values that are not finite, or shapes that do not match.
    """
    r, d = numbers("rate", rate, "fit"), numbers("distortion", distortion, "fit")
    same_size("distortion", d, len(r), "rate")
    errors = []
    for name, values in (("rate_se", rate_se), ("distortion_se", distortion_se)):
        error = np.zeros(len(r)) if values is None else numbers(name, values, "fit")
        same_size(name, error, len(r), "rate")
        errors.append(2 * error)
    names = names_of(labels, len(r), "fit")
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    left, right = _limits(d, errors[1])
    bottom, top = _limits(r, errors[0])
    across = np.linspace(left, right, _NUM_ACROSS)
    best = int(np.argmin(r + d))
    axes.plot(across, r[best] + d[best] - across, color=GREY, linestyle=":", label=f"R + D = {r[best] + d[best]:.4g}")
    if entropy is not None:
        line = entropy - across
        axes.fill_between(across, bottom, np.maximum(line, bottom), color=RED, alpha=0.12, label="below H - D")
        axes.plot(across, line, color=RED, linewidth=0.8)
    if bound is not None:
        where, least = numbers("bound", bound[0], "point"), numbers("bound", bound[1], "point", finite=False)
        same_size("bound", least, len(where), "its distortions")
        axes.plot(where, least, color=RED, linestyle="--", label="least rate of any code")
    on = list(hull)
    off = [i for i in range(len(r)) if i not in on]
    if len(on) > 1:
        axes.plot(d[on], r[on], color=BLUE, linewidth=1.0, label="lower convex hull")
    for which, style in ((on, {"markerfacecolor": BLUE}), (off, {"markerfacecolor": "white"})):
        if which:
            _points(axes, d[which], r[which], errors[1][which], errors[0][which], style)
    for name, x, y in zip(names, d, r, strict=True):
        axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", color=INK, fontsize=7.5)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="distortion, nats per datum", ylabel="rate, nats per datum")
    axes.grid()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _points(axes: Any, x: Array, y: Array, x_error: Array, y_error: Array, style: dict[str, Any]) -> None:
    axes.errorbar(x, y, xerr=x_error, yerr=y_error, fmt="o", color=BLUE, markersize=5, elinewidth=0.9, **style)


def _limits(values: Array, error: Array) -> tuple[float, float]:
    low, high = float((values - error).min()), float((values + error).max())
    margin = _MARGIN * (high - low) or max(0.1 * abs(low), 1.0)
    return low - margin, high + margin
