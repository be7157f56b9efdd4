"""Data, reconstructions and samples, as their shape suggests: images, points in the plane, or elements of a vector."""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, MAX_PANELS, RED, Array, marginals, names_of, small_multiples, styled

_TILE_PIXELS = 84
_GAP, _HIDDEN = "#d3d5d7", "#e8c9b5"


def is_image(x: Array) -> bool:
    return x.ndim == 3 or (x.ndim == 4 and x.shape[1] in (1, 3))


def bounds_of(x: Array) -> tuple[float, float]:
    """Lowest value, at most 0, and highest: what white and black stand for."""
    low = min(float(np.nanmin(x)), 0.0)
    return low, max(float(np.nanmax(x)), low + 1e-12)


def _tiles(images: Array, low: float, high: float, colours: str = "gray_r") -> tuple[Array, int, int]:
    """Images ``(row, column, *x_shape)`` as one RGB picture with lines between, and the pitch of tiles in pixels."""
    if images.ndim == 5 and images.shape[2] == 3:
        pixels = np.moveaxis(images, 2, -1)
    else:
        pixels = images[:, :, 0] if images.ndim == 5 else images
    hidden = np.isnan(pixels)
    level = np.clip((np.where(hidden, low, pixels) - low) / (high - low), 0, 1)
    if pixels.ndim == 5:
        picture, hidden = level, hidden.any(-1)
    else:
        picture = colormaps[colours](level)[..., :3]
    picture[hidden] = to_rgb(_HIDDEN)
    picture[hidden.all((2, 3))] = 1.0  # a place of the grid without a datum
    height, width = picture.shape[2:4]
    zoom = max(ceil(_TILE_PIXELS / max(height, width)), 1)
    picture = picture.repeat(zoom, 2).repeat(zoom, 3)
    line = max(round(0.025 * zoom * max(height, width)), 1)
    padded = np.empty((*picture.shape[:2], height * zoom + line, width * zoom + line, 3))
    padded[...] = to_rgb(_GAP)
    padded[:, :, line:, line:] = picture
    tall, wide = padded.shape[2:4]
    whole = np.empty((padded.shape[0] * tall + line, padded.shape[1] * wide + line, 3))
    whole[...] = to_rgb(_GAP)
    whole[:-line, :-line] = padded.transpose(0, 2, 1, 3, 4).reshape(whole.shape[0] - line, whole.shape[1] - line, 3)
    return whole, tall, wide


def _show_tiles(
    axes: Any,
    images: Array,
    bounds: tuple[float, float],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    colours: str = "gray_r",
) -> None:
    picture, tall, wide = _tiles(images, *bounds, colours=colours)
    axes.imshow(picture)
    _label_tiles(axes, tall, wide, rows, columns)


def _label_tiles(axes: Any, tall: int, wide: int, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_xticks([(i + 0.5) * wide for i in range(len(columns))], columns)
    axes.set_yticks([(i + 0.5) * tall for i in range(len(rows))], rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _grid(images: Array, columns: int | None = None) -> Array:
    """Images ``(datum, *x_shape)`` as ``(row, column, *x_shape)``; places without a datum are NaN."""
    columns = columns or ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    places = np.full((rows * columns, *images.shape[1:]), np.nan)
    places[: len(images)] = images
    return places.reshape(rows, columns, *images.shape[1:])


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
        places = _grid(x)
        rows, columns = places.shape[:2]
        side = min(0.8, 7.6 / columns)
        figure = Figure(figsize=(max(side * columns, 2.4), side * rows + 0.4), layout="constrained")
        _show_tiles(figure.subplots(), places, bounds_of(x))
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


def events(name: str, x: Any) -> Array:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{name} of shape (datum, *x_shape) with at least one datum wanted, got {array.shape}")
    if np.isnan(array).all() or np.isinf(array).any():
        raise ValueError(f"{name} holds values that are infinite, or nothing but NaN; there is nothing to show")
    return array


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
    _alike("reconstruction", again, x)
    if is_image(x):
        columns = min(len(x), 8)
        first, second = _grid(x, columns), _grid(again, columns)
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


def _alike(name: str, array: Array, x: Array) -> None:
    if array.shape != x.shape:
        raise ValueError(f"{name} of the shape of x, {x.shape}, wanted; got {array.shape}")


def labelled_tiles(
    images: Array, bounds: tuple[float, float], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    side = min(0.72, 7.0 / images.shape[1])
    size = (max(side * images.shape[1] + 0.7, 2.4), side * images.shape[0] + (0.65 if columns else 0.4))
    figure = Figure(figsize=size, layout="constrained")
    _show_tiles(figure.subplots(), images, bounds, rows=rows, columns=columns)
    figure.suptitle(title)
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
        _alike(name, array, x)
    if (sd < 0).any():
        raise ValueError(f"sd holds a negative standard deviation, {np.nanmin(sd):g}")
    if is_image(x):
        x, mean, sd = x[:8], mean[:8], sd[:8]
        figure = Figure(figsize=(max(0.84 * len(x) + 1.2, 4.4), 3.0), layout="constrained")
        axes = figure.subplots()
        top = max(float(np.nanmax(sd)), 1e-12)
        grey = sd.mean(1) if sd.ndim == 4 else sd  # one number for each pixel, over its channels
        pictures, tall, _ = _tiles(np.stack([x, mean]), *bounds_of(x))
        spread, _, _ = _tiles(grey[None], 0.0, top, colours="Purples")
        axes.imshow(np.concatenate([pictures[: 2 * tall], spread]))
        _label_tiles(axes, tall, 0, ["x", "mean", "sd"], [])
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


@styled
def plot_samples(x: Array, samples: Array) -> Figure:
    """Draws of the model beside data, by eye: images in two grids, points in two planes, else element by element.

    Args:
        x: data, ``(datum, *x_shape)``; at most 49 images are shown.
        samples: draws from the prior predictive, or their expectations, ``(draw, *x_shape)``.

    Raises:
        ValueError: no data or draws, or other event shapes.
    """
    x, samples = events("x", x), events("samples", samples)
    if x.shape[1:] != samples.shape[1:]:
        raise ValueError(f"samples of event shape {x.shape[1:]} wanted, as x has; got {samples.shape[1:]}")
    titles = ("data", "samples, z from the prior")
    if is_image(x):
        bounds = bounds_of(x)
        x, samples = x[:49], samples[:49]
        columns = ceil(sqrt(max(len(x), len(samples))))
        rows = ceil(max(len(x), len(samples)) / columns)
        side = min(0.6, 3.7 / columns)
        figure = Figure(figsize=(max(2 * side * columns + 0.3, 3.6), side * rows + 0.35), layout="constrained")
        for axes, images, title in zip(figure.subplots(1, 2), (x, samples), titles, strict=True):
            _show_tiles(axes, _grid(images, columns), bounds)
            axes.set_title(title)
        return figure
    x, samples = x.reshape(len(x), -1), samples.reshape(len(samples), -1)
    if x.shape[1] == 2:
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        grid = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, points, title, colour in zip(grid, (x, samples), titles, (RED, BLUE), strict=True):
            axes.scatter(points[:, 0], points[:, 1], s=8, alpha=0.6, color=colour)
            axes.set(title=f"{title}, n = {len(points):,}", xlabel="x[0]", ylabel="x[1]")
            axes.grid()
        return figure
    if x.shape[1] <= MAX_PANELS:
        return marginals(x, samples, names_of(None, x.shape[1], "x"), titles)
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    element = np.arange(x.shape[1])
    for values, colour, title, line in ((x, RED, titles[0], "-"), (samples, BLUE, titles[1], "--")):
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95], axis=0)
        axes.fill_between(element, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(element, middle, color=colour, linestyle=line, label=f"{title}: median, 5 % to 95 %")
    axes.set(xlabel="element of x", ylabel="value")
    axes.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
