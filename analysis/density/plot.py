"""Pictures of held-out log p(x): tail indices of the importance weights."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, GREY, INK, RED, Array, numbers, styled


@styled
def plot_khat(pareto_k: Array, good_k: float) -> Figure:
    """Tail index of the importance weights of each datum, with its thresholds.

    Minus infinity (equal weights) and NaN (tied ones) are drawn on the lower edge, plus infinity on the upper one.

    Args:
        pareto_k: ``(datum,)``.
        good_k: threshold below which estimates are useful, see `analysis.ELPD`.

    Raises:
        ValueError: no datum.

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3.2. arXiv:1507.02646
    """
    tied = np.isnan(np.asarray(pareto_k, dtype=np.float64))
    k = numbers("pareto_k", np.where(tied, -np.inf, pareto_k), "datum", finite=False)
    seen = k[np.isfinite(k)]
    low = min(float(seen.min(initial=0.0)), 0.0) - 0.1
    high = max(float(seen.max(initial=0.0)), 1.0) + 0.12
    figure = Figure(figsize=(7.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4, 1], sharey=True)
    datum, drawn = np.arange(len(k)), np.clip(k, low + 0.03, high - 0.03)
    kinds = (
        (tied, "s", GREY, "tied weights, no tail"),
        ((k <= good_k) & ~tied, "o", BLUE, f"at most {good_k:.2f}"),
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
