"""Importance weights, predictive statistics, gaps of inference and anomaly scores, with the limits they are held to."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import (
    BLUE,
    GREY,
    INK,
    RED,
    Array,
    bin_edges,
    density,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)


@styled
def plot_khat(pareto_k: Array, good_k: float) -> Figure:
    """Tail index of the importance weights of each datum, with the limits of trust.

    Minus infinity (equal weights) is drawn on the lower edge, plus infinity on the upper one.

    Args:
        pareto_k: ``(datum,)``.
        good_k: limit below which an estimate can be trusted, see `analysis.ELPD`.

    Raises:
        ValueError: no datum, or NaN.

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3.2. arXiv:1507.02646
    """
    k = numbers("pareto_k", pareto_k, "datum", finite=False)
    seen = k[np.isfinite(k)]
    low = min(float(seen.min(initial=0.0)), 0.0) - 0.1
    high = max(float(seen.max(initial=0.0)), 1.0) + 0.12
    figure = Figure(figsize=(7.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4, 1], sharey=True)
    datum, drawn = np.arange(len(k)), np.clip(k, low + 0.03, high - 0.03)
    kinds = (
        (k <= good_k, "o", BLUE, f"trusted, at most {good_k:.2f}"),
        ((k > good_k) & (k <= 1), "D", "#b07d00", "too low by an unknown amount"),
        (k > 1, "X", RED, "above 1, no mean exists"),
    )
    size = float(np.clip(4000 / len(k), 3, 26))
    for chosen, marker, colour, name in kinds:
        if chosen.any():
            label = f"{name}: {int(chosen.sum()):,}"
            left.scatter(
                datum[chosen], drawn[chosen], s=size, marker=marker, color=colour, alpha=0.65, linewidth=0, label=label
            )
    for limit, line in ((good_k, "--"), (1.0, ":")):
        for axes in (left, right):
            axes.axhline(limit, color=INK, linestyle=line, linewidth=0.9)
    edges = np.linspace(low, high, 40)
    counts, _ = np.histogram(drawn, edges)
    right.stairs(counts, edges, orientation="horizontal", fill=True, color=GREY, alpha=0.6)
    left.set(xlabel="datum", ylabel="k-hat", ylim=(low, high))
    left.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
    right.set(xlabel="data")
    left.grid(axis="y")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=1.4)
    return figure


@styled
def plot_predictive(
    observed: Sequence[float] | Array,
    replicated: Sequence[Array] | Array,
    names: Sequence[str],
    p_values: Sequence[float] | Array | None = None,
) -> Figure:
    """Statistics of replicated data sets, and where the data's own stand among them.

    Args:
        observed: statistic of the data, ``(statistic,)``.
        replicated: the same of replicated data, ``(statistic, draw)``.
        names: of the statistics.
        p_values: ``(statistic,)``, shown beside the names.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    values = numbers("observed", observed, "statistic")
    draws = numbers("replicated", np.asarray(replicated, dtype=np.float64), "statistic", "draw")
    same_size("observed", values, len(draws), "replicated")
    names = names_of(names, len(values))
    tails = None if p_values is None else numbers("p_values", p_values, "statistic")
    if tails is not None:
        same_size("p_values", tails, len(values), "observed")
    figure, panels = small_multiples(len(values), 2.0, 1.65)
    for index, axes in enumerate(panels):
        edges = bin_edges(draws[index], draws.shape[1])
        axes.stairs(density(draws[index], edges), edges, fill=True, color=BLUE, alpha=0.45, label="replicated")
        axes.axvline(values[index], color=RED, linewidth=1.8, linestyle="--", label="observed")
        tail = "" if tails is None else f"  p = {tails[index]:.3f}"
        axes.set(title=f"{names[index]}{tail}", yticks=[])
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes.spines.left.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def plot_gaps(
    names: Sequence[str], values: Sequence[float] | Array, errors: Sequence[float] | Array | None = None
) -> Figure:
    """Gaps of inference as bars with their standard errors.

    Args:
        names: of the gaps.
        values: nats per datum, ``(gap,)``.
        errors: standard errors, ``(gap,)``.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    gaps = numbers("values", values, "gap")
    names = names_of(names, len(gaps))
    error = None if errors is None else numbers("errors", errors, "gap")
    if error is not None:
        same_size("errors", error, len(gaps), "values")
    figure = Figure(figsize=(6.6, 0.42 * len(gaps) + 0.8), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(gaps))[::-1]
    axes.barh(place, gaps, height=0.62, color=BLUE, alpha=0.75)
    if error is not None:
        axes.errorbar(gaps, place, xerr=error, fmt="none", ecolor=INK, capsize=3, linewidth=1.1)
    ends = np.maximum(gaps, 0) + (0 if error is None else error)
    for y, x, gap in zip(place, ends, gaps, strict=True):
        axes.annotate(f"{gap:.3g}", (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlabel("nats per datum, ± one standard error")
    axes.grid(axis="x")
    return figure


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
    # A few scores can be a hundred times the rest; they are counted in the last bin, and the label says so.
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
    more = f"; {beyond:,} beyond stand in the last bin" if beyond else ""
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
            raise ValueError(f"{name} in [0, 1] wanted, got [{array.min():g}, {array.max():g}]")
    figure = Figure(figsize=(3.9, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.plot(x, y, color=BLUE, drawstyle="steps-post")
    title = "" if auroc is None else f"AUROC {auroc:.3f}" + ("" if error is None else f" ± {error:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="false alarms", ylabel="hits", title=title)
    axes.set_aspect("equal")
    axes.grid()
    return figure
