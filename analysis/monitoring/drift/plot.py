"""Pictures of a drift test: statistics among their relabellings, and latents that moved."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.distributions import bin_edges, density, marginals
from analysis.plotting.style import (
    BLUE,
    GREY,
    INK,
    MAX_PANELS,
    RED,
    Array,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)

_MAX_LATENTS = 24
_WIDE = 10


@styled
def plot_relabelled(
    statistics: Array, names: Sequence[str] | None = None, p_values: Array | None = None, *, alpha: float = 0.05
) -> Figure:
    """Each statistic of the given labels among those of relabelled data, with the value that few of them exceed.

    Args:
        statistics: the given arrangement first, ``(arrangement, statistic)``; larger is farther apart.
        names: of the statistics.
        p_values: ``(statistic,)``.
        alpha: share of relabellings beyond the dashed line.

    Raises:
        ValueError: other shapes, fewer than two arrangements, or a value that is not finite.
    """
    values = numbers("statistics", statistics, "arrangement", "statistic")
    names = names_of(names, values.shape[1], "statistic")
    if len(values) < 2:
        raise ValueError(f"the given arrangement and at least one relabelling required, got {len(values)} rows")
    p = None if p_values is None else numbers("p_values", p_values, "statistic")
    if p is not None:
        same_size("p_values", p, len(names), "names")
    figure, panels = small_multiples(len(names), 2.6, 2.0)
    for place, (axes, name) in enumerate(zip(panels, names, strict=True)):
        given, null = values[0, place], values[1:, place]
        edges = bin_edges(null, len(null))
        axes.stairs(density(null, edges), edges, fill=True, color=GREY, alpha=0.5, label="relabelled data")
        axes.axvline(
            float(np.quantile(null, 1 - alpha)),
            color=INK,
            linestyle="--",
            linewidth=1.0,
            label=f"{alpha:.0%} lie beyond",
        )
        axes.axvline(given, color=RED, linewidth=1.8, label="these data")
        axes.set(title=name if p is None else f"{name}\np = {p[place]:.3g}", yticks=[])
        axes.spines.left.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def plot_latent_drift(
    shift: Array, spread: Array, p_values: Array, names: Sequence[str] | None = None, *, alpha: float = 0.05
) -> Figure:
    """How far each latent's posterior means moved and spread, the clearest first; those that moved are filled.

    Args:
        shift: difference of means in reference standard deviations, ``(latent,)``.
        spread: ratio of standard deviations, positive, ``(latent,)``.
        p_values: adjusted for the number of latents, ``(latent,)``.
        names: of the latents.
        alpha: at which a latent counts as moved.

    Raises:
        ValueError: shapes that do not belong together, a spread that is not positive, or a value that is not finite.
    """
    moved_by = numbers("shift", shift, "latent")
    ratio, p = numbers("spread", spread, "latent"), numbers("p_values", p_values, "latent")
    for name, array in (("spread", ratio), ("p_values", p)):
        same_size(name, array, len(moved_by), "shift")
    if (ratio <= 0).any():
        raise ValueError(f"spread is a ratio above 0, got {ratio.min():g}")
    names = names_of(names, len(moved_by))
    order = np.lexsort((-np.abs(moved_by) - np.abs(np.log(ratio)), p))[:_MAX_LATENTS]
    place = np.arange(len(order))[::-1]
    figure = Figure(figsize=(6.8, 0.27 * len(order) + 1.1), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    significant = p[order] <= alpha
    for axes, values, origin in ((left, moved_by[order], 0.0), (right, ratio[order], 1.0)):
        axes.hlines(place, origin, values, color=GREY, linewidth=1.0)
        for chosen, face, label in (
            (significant, RED, f"moved (p at most {alpha:g})"),
            (~significant, "white", "not seen to move"),
        ):
            axes.scatter(
                values[chosen], place[chosen], s=30, facecolor=face, edgecolor=RED if face == RED else BLUE, zorder=3,
                label=label,
            )  # fmt: skip
        axes.axvline(origin, color=INK, linewidth=0.8)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    if ratio[order].max() > _WIDE * ratio[order].min():  # over a narrow range a logarithmic axis has no readable ticks
        right.set_xscale("log")
    left.set_yticks(place, [names[i] for i in order])
    left.set_xlabel("shift of the mean, reference sd")
    right.set_xlabel("spread, times the reference's")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def plot_latent_marginals(reference: Array, new: Array, names: Sequence[str] | None = None) -> Figure:
    """Posterior means of latents in reference and new data, one histogram over the other, of the first twelve.

    Args:
        reference: ``(datum, latent)``.
        new: ``(datum, latent)``.
        names: of the latents.

    Raises:
        ValueError: other shapes, or a value that is not finite.
    """
    first, second = numbers("reference", reference, "datum", "latent"), numbers("new", new, "datum", "latent")
    same_size("new", second, first.shape[1], "reference")
    names = names_of(names, first.shape[1])[:MAX_PANELS]
    return marginals(first, second, names, ("held-out data", "new data"))
