"""Pictures of the decoder over the latent space: traversals and interpolations."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from analysis.plotting.style import GREY, Array, names_of, numbers, same_size, small_multiples, styled
from analysis.plotting.tiles import bounds_of, is_image, labelled_tiles

_MAX_ROWS = 20


@styled
def plot_traversal(
    decoded: Array, values: Array, names: Sequence[str] | None = None, *, bounds: tuple[float, float] | None = None
) -> Figure:
    """E[x | z] along one latent at a time: one row a latent.

    Args:
        decoded: ``(latent, step, *x_shape)``. At most twenty latents are shown.
        values: of the latent at each step, ``(step,)``.
        names: of the latents; ``z[i]`` if not given.
        bounds: what white and black stand for, best the range of the data; that of ``decoded`` if not given.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    decoded, names = _rows("decoded", decoded, names, "z")
    steps = numbers("values", values, "step")
    same_size("values", steps, decoded.shape[1], "decoded")
    return _draw_rows(decoded, names, steps, "value of the latent", "E[x | z] along a latent", bounds)


@styled
def plot_interpolation(
    decoded: Array, names: Sequence[str] | None = None, *, bounds: tuple[float, float] | None = None
) -> Figure:
    """E[x | z] on the way from the code of one datum to that of another: one row a pair.

    Args:
        decoded: ``(pair, step, *x_shape)``. At most twenty pairs are shown.
        names: of the pairs; their numbers if not given.
        bounds: see `plot_traversal`.

    Raises:
        ValueError: other shapes, or a value that is not finite.
    """
    decoded, names = _rows("decoded", decoded, names, "pair")
    fraction = np.linspace(0, 1, decoded.shape[1])
    return _draw_rows(decoded, names, fraction, "fraction of the way", "E[x | z] between two data", bounds)


def _rows(name: str, decoded: Any, names: Sequence[str] | None, stem: str) -> tuple[Array, list[str]]:
    array = np.asarray(decoded, dtype=np.float64)
    if array.ndim < 3 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} of shape (row, step, *x_shape), finite, required; got {array.shape}")
    return array[:_MAX_ROWS], names_of(names, len(array), stem)[:_MAX_ROWS]


def _draw_rows(
    decoded: Array, names: list[str], steps: Array, along: str, title: str, bounds: tuple[float, float] | None
) -> Figure:
    if is_image(decoded[0]):
        bounds = bounds_of(decoded if bounds is None else np.asarray(bounds))
        figure = labelled_tiles(decoded, bounds, names, [f"{step:.2g}" for step in steps], title)
        figure.axes[0].set_xlabel(along)
        return figure
    flat = decoded.reshape(*decoded.shape[:2], -1)
    figure, panels = small_multiples(len(flat), 2.5, 1.9, columns=3, sharex=True, sharey=True)
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(steps)))
    labels = {1: (along, "E[x | z]"), 2: ("x[0]", "x[1]")}.get(flat.shape[2], ("element of x", "E[x | z]"))
    for axes, row, name in zip(panels, flat, names, strict=True):
        if flat.shape[2] <= 2:
            across, up = (steps, row[:, 0]) if flat.shape[2] == 1 else (row[:, 0], row[:, 1])
            axes.plot(across, up, color=GREY, linewidth=0.8)
            axes.scatter(across, up, color=colours, s=16, zorder=3)
        else:
            for values, colour in zip(row, colours, strict=True):
                axes.plot(values, color=colour, linewidth=1, marker="." if flat.shape[2] < 30 else None)
        axes.set_title(name)
        axes.grid()
    if flat.shape[2] > 1:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, len(steps) - 1), mpl.colors.ListedColormap(colours))
        ends = sorted({0, len(steps) - 1})
        bar = figure.colorbar(scale, ax=panels, shrink=0.8, label=along, ticks=ends)
        bar.ax.set_yticklabels([f"{steps[index]:.2g}" for index in ends])
    figure.supxlabel(labels[0], fontsize=9)
    figure.supylabel(labels[1], fontsize=9)
    figure.suptitle(title)
    return figure
