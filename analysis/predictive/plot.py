"""Pictures of predictive checks: statistics of replicated data, and reconstructions with their uncertainty."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.distributions import bin_edges, density
from analysis.plotting.style import (
    BLUE,
    RED,
    Array,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)
from analysis.plotting.tiles import bounds_of, events, is_image, label_tiles, require_alike, tiles


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
def plot_reconstruction(x: Array, mean: Array, sd: Array) -> Figure:
    """Data, what the model predicts for them, and how unsure it is of it.

    Args:
        x: ``(datum, *x_shape)``; NaN is shown as hidden. Eight images, or six of other data, are shown at most.
        mean: mean of the posterior predictive of each element, shape of ``x``.
        sd: its standard deviation, shape of ``x``.

    Raises:
        ValueError: no data, other shapes, or a negative standard deviation.
    """
    x, mean, sd = events("x", x), events("mean", mean), events("sd", sd)
    for name, array in (("mean", mean), ("sd", sd)):
        require_alike(name, array, x)
    if (sd < 0).any():
        raise ValueError(f"sd holds a negative standard deviation, {np.nanmin(sd):g}")
    if is_image(x):
        x, mean, sd = x[:8], mean[:8], sd[:8]
        figure = Figure(figsize=(max(0.84 * len(x) + 1.2, 4.4), 3.0), layout="constrained")
        axes = figure.subplots()
        top = max(float(np.nanmax(sd)), 1e-12)
        grey = sd.mean(1) if sd.ndim == 4 else sd  # one number for each pixel, over its channels
        pictures, tall, _ = tiles(np.stack([x, mean]), *bounds_of(x))
        spread, _, _ = tiles(grey[None], 0.0, top, colours="Purples")
        axes.imshow(np.concatenate([pictures[: 2 * tall], spread]))
        label_tiles(axes, tall, 0, ["x", "mean", "sd"], [])
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, top), "Purples")
        figure.colorbar(scale, ax=axes, aspect=12, shrink=0.5, pad=0.01, ticks=[0, top], format="%.2g", label="sd")
        figure.suptitle("data, posterior predictive mean and sd")
        return figure
    x, mean, sd = (array.reshape(len(array), -1)[:6] for array in (x, mean, sd))
    figure, panels = small_multiples(len(x), 2.7, 2.0, columns=3, sharey=True)
    element = np.arange(x.shape[1])
    for index, axes in enumerate(panels):
        if len(element) <= 40:
            axes.errorbar(
                element, mean[index], 2 * sd[index], fmt="_", color=BLUE, markersize=7, linewidth=3, alpha=0.45
            )
            axes.plot(element, x[index], ".", color=RED, markersize=5)
            axes.set_xlim(-0.7, len(element) - 0.3)
        else:
            low, high = mean[index] - 2 * sd[index], mean[index] + 2 * sd[index]
            axes.fill_between(element, low, high, color=BLUE, alpha=0.25, linewidth=0)
            axes.plot(element, mean[index], color=BLUE, linewidth=1)
            axes.plot(element, x[index], ".", color=RED, markersize=2)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        axes.set_title(f"datum {index}")
        axes.grid(axis="y")
    for axes in panels[-min(3, len(panels)) :]:
        axes.set_xlabel("element of x")
    figure.suptitle("data (points), posterior predictive mean ± 2 sd (bars)")
    return figure
