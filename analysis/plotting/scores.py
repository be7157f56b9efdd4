"""Scores of two groups of data, and how well a threshold separates them."""

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.distributions import bin_edges, density
from analysis.plotting.style import BLUE, GREY, INK, RED, Array, numbers, same_size, styled


@styled
def plot_scores(
    inside: Array,
    outside: Array | None = None,
    *,
    threshold: float | None = None,
    names: tuple[str, str] = ("held-out data", "other data"),
    xlabel: str = "anomaly score, nats",
) -> Figure:
    """Anomaly scores and the threshold above which a datum is flagged.

    Args:
        inside: scores of data like those fitted, ``(datum,)``; larger is stranger.
        outside: scores of other data, ``(datum,)``.
        threshold: in the unit of the scores.
        names: of the two.
        xlabel: what the score is, and its unit.

    Raises:
        ValueError: other shapes, or a score that is not finite.
    """
    groups = [numbers("inside", inside, "datum")]
    groups += [] if outside is None else [numbers("outside", outside, "datum")]
    joined = np.concatenate(groups)
    # A few scores can be a hundred times the rest; they are counted in the last bin, and the label states it.
    top = float(np.quantile(joined, 0.99)) + 0.25 * float(np.ptp(np.quantile(joined, [0.01, 0.99])))
    beyond = int((joined > top).sum()) if joined.max() > top else 0
    edges = bin_edges(np.minimum(joined, top) if beyond else joined, min(len(group) for group in groups))
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    axes = figure.subplots()
    for group, name, colour, fill in zip(groups, names, (BLUE, RED), (True, False), strict=False):
        height = density(np.minimum(group, edges[-1]), edges)
        axes.stairs(
            height, edges, fill=fill, color=colour, alpha=0.5 if fill else 1, linewidth=1.5,
            label=f"{name}, n = {len(group):,}",
        )  # fmt: skip
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.4g}")
    more = f"; {beyond:,} beyond are in the last bin" if beyond else ""
    axes.set(xlabel=f"{xlabel}{more}", yticks=[], ylabel="density")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled
def plot_roc(false_alarm: Array, hit: Array, *, auroc: float | None = None, error: float | None = None) -> Figure:
    """Receiver operating characteristic of an anomaly score.

    Args:
        false_alarm: share of ordinary data flagged, rising, ``(threshold,)``.
        hit: share of strange data flagged, ``(threshold,)``.
        auroc: area under the curve.
        error: its standard error.

    Raises:
        ValueError: shapes that do not belong together, or a share out of [0, 1].
    """
    x, y = numbers("false_alarm", false_alarm, "threshold"), numbers("hit", hit, "threshold")
    same_size("hit", y, len(x), "false_alarm")
    for name, array in (("false_alarm", x), ("hit", y)):
        if array.min() < 0 or array.max() > 1:
            raise ValueError(f"{name} in [0, 1] required, got [{array.min():g}, {array.max():g}]")
    figure = Figure(figsize=(3.9, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.plot(x, y, color=BLUE, drawstyle="steps-post")
    title = "" if auroc is None else f"AUROC {auroc:.3f}" + ("" if error is None else f" ± {error:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="false alarms", ylabel="hits", title=title)
    axes.set_aspect("equal")
    axes.grid()
    return figure
