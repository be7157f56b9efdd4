"""Data and reconstructions, as their shape suggests: images, points in the plane, or elements of a vector."""

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, RED, Array, styled
from analysis.plotting.tiles import as_grid, bounds_of, events, is_image, labelled_tiles, require_alike, show_tiles


@styled
def plot_data(x: Array, title: str) -> Figure:
    """Data as their shape suggests: a grid of images, a scatter in the plane, or a heat map with one row a datum.

    Args:
        x: ``(datum, *x_shape)``; NaN is shown as hidden.
        title: above the figure.

    Raises:
        ValueError: no data.
    """
    x = events("x", x)
    if is_image(x):
        places = as_grid(x)
        rows, columns = places.shape[:2]
        side = min(0.8, 7.6 / columns)
        figure = Figure(figsize=(max(side * columns, 2.4), side * rows + 0.4), layout="constrained")
        show_tiles(figure.subplots(), places, bounds_of(x))
    else:
        figure = Figure(figsize=(5.5, 4.2), layout="constrained")
        axes = figure.subplots()
        flat = x.reshape(len(x), -1)
        if flat.shape[1] == 2:
            axes.scatter(flat[:, 0], flat[:, 1], s=8, alpha=0.6, color=BLUE)
            axes.set(xlabel="x[0]", ylabel="x[1]")
        else:
            picture = axes.imshow(flat, aspect="auto", cmap="viridis")
            axes.set(xlabel="element of x", ylabel="datum")
            figure.colorbar(picture, ax=axes)
    figure.suptitle(title)
    return figure


@styled
def plot_pairs(x: Array, reconstruction: Array) -> Figure:
    """Data beside their reconstructions.

    Args:
        x: ``(datum, *x_shape)``; NaN is shown as hidden.
        reconstruction: E[x | z], same shape.

    Raises:
        ValueError: no data, or other shapes.
    """
    x, again = events("x", x), events("reconstruction", reconstruction)
    require_alike("reconstruction", again, x)
    if is_image(x):
        columns = min(len(x), 8)
        first, second = as_grid(x, columns), as_grid(again, columns)
        stacked = np.stack([first, second], 1).reshape(2 * len(first), *first.shape[1:])
        return labelled_tiles(
            stacked, bounds_of(x), ["x", "E[x|z]"] * len(first), [], "data, and E[x | z] for a draw of q(z | x)"
        )
    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(x.ravel(), again.ravel(), s=8, alpha=0.6, color=BLUE)
    ends = [float(np.nanmin(x)), float(np.nanmax(x))]
    axes.plot(ends, ends, color=RED, linestyle="--", label="equal")
    axes.set(xlabel="x, every element", ylabel="E[x | z]", title="data and reconstructions")
    axes.legend()
    return figure
