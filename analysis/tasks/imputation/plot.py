"""Pictures of imputed data beside the truth: images as rows of tiles, other data as intervals."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, GREY, RED, Array, styled
from analysis.plotting.tiles import bounds_of, events, is_image, labelled_tiles

_IMAGES, _POINTS = 10, 400


@styled
def plot_imputations(
    x: Array,
    mask: Array,
    mean: Array,
    imputations: Any = (),
    *,
    lower: Array | None = None,
    upper: Array | None = None,
    title: str = "data, what was seen of them, and what was imputed",
) -> Figure:
    """Data, what was observed of them, E[x | x_observed], and draws of p(x_missing | x_observed).

    Images stand in columns, ten at most. Of other data the hidden elements are shown against their imputed means, with
    intervals where they are given; 400 at most, in their order.

    Args:
        x: the truth, ``(datum, *x_shape)``.
        mask: boolean, same shape, true where observed.
        mean: as `vae_pyro.applications.imputation_result.Imputation.mean`, same shape.
        imputations: ``(imputation, datum, *x_shape)``, shown of images only.
        lower: lower ends of intervals, same shape as ``x``.
        upper: upper ends.
        title: above the figure.

    Raises:
        ValueError: no data, other shapes, or nothing hidden.
    """
    x, mean, mask = events("x", x), events("mean", mean), np.asarray(mask, dtype=bool)
    draws = np.asarray(imputations, dtype=np.float64).reshape(-1, *x.shape)
    for name, array in (("mask", mask), ("mean", mean)):
        if array.shape != x.shape:
            raise ValueError(f"{name} has shape {array.shape}, x {x.shape}; they belong together one by one")
    if mask.all():
        raise ValueError("the mask is true everywhere: nothing was imputed, and there is nothing to show")
    if is_image(x):
        some = slice(_IMAGES)
        rows = [x[some], np.where(mask, x, np.nan)[some], mean[some], *draws[:, some]]
        names = ["x", "observed", "mean", *(f"draw {k + 1}" for k in range(len(draws)))]
        return labelled_tiles(np.stack(rows), bounds_of(x), names, [], title)
    hidden, guess = x[~mask][:_POINTS], mean[~mask][:_POINTS]
    figure = Figure(figsize=(5.0, 4.4), layout="constrained")
    axes = figure.subplots()
    if lower is not None and upper is not None:
        low, high = np.asarray(lower)[~mask][:_POINTS], np.asarray(upper)[~mask][:_POINTS]
        inside = (low <= hidden) & (hidden <= high)
        for chosen, colour, word in ((inside, BLUE, "holds it"), (~inside, RED, "does not")):
            axes.vlines(hidden[chosen], low[chosen], high[chosen], color=colour, alpha=0.35, linewidth=0.9, label=word)
        axes.legend(title="the interval")
    axes.scatter(hidden, guess, s=7, color=BLUE, zorder=3)
    ends = [min(hidden.min(), guess.min()), max(hidden.max(), guess.max())]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=0.9)
    axes.set(xlabel="what was hidden", ylabel="what was imputed")
    figure.suptitle(title)
    return figure
