"""Images side by side on one pair of axes, and checks of the arrays that hold them."""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analysis.plotting.style import Array

_TILE_PIXELS = 84
_GAP, _HIDDEN = "#d3d5d7", "#e8c9b5"


def is_image(x: Array) -> bool:
    """Whether data ``(datum, *x_shape)`` are images: of one channel, or of one or three in front."""
    return x.ndim == 3 or (x.ndim == 4 and x.shape[1] in (1, 3))


def bounds_of(x: Array) -> tuple[float, float]:
    """Lowest value, at most 0, and highest: what white and black stand for."""
    low = min(float(np.nanmin(x)), 0.0)
    return low, max(float(np.nanmax(x)), low + 1e-12)


def events(name: str, x: Any) -> Array:
    """Data ``(datum, *x_shape)`` as float64.

    Raises:
        ValueError: no data, an infinite value, or nothing but NaN.
    """
    array = np.asarray(x, dtype=np.float64)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{name} of shape (datum, *x_shape) with at least one datum required, got {array.shape}")
    if np.isnan(array).all() or np.isinf(array).any():
        raise ValueError(f"{name} holds values that are infinite, or nothing but NaN; there is nothing to show")
    return array


def require_alike(name: str, array: Array, x: Array) -> None:
    """Refuse an array of another shape than the data."""
    if array.shape != x.shape:
        raise ValueError(f"{name} of the shape of x, {x.shape}, required; got {array.shape}")


def tiles(images: Array, low: float, high: float, colours: str = "gray_r") -> tuple[Array, int, int]:
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


def as_grid(images: Array, columns: int | None = None) -> Array:
    """Images ``(datum, *x_shape)`` as ``(row, column, *x_shape)``; places without a datum are NaN."""
    columns = columns or ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    places = np.full((rows * columns, *images.shape[1:]), np.nan)
    places[: len(images)] = images
    return places.reshape(rows, columns, *images.shape[1:])


def show_tiles(
    axes: Any,
    images: Array,
    bounds: tuple[float, float],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    colours: str = "gray_r",
) -> None:
    """Images ``(row, column, *x_shape)`` side by side on one pair of axes."""
    picture, tall, wide = tiles(images, *bounds, colours=colours)
    axes.imshow(picture)
    label_tiles(axes, tall, wide, rows, columns)


def label_tiles(axes: Any, tall: int, wide: int, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names of rows and columns of tiles ``tall`` and ``wide`` pixels apart."""
    axes.set_xticks([(i + 0.5) * wide for i in range(len(columns))], columns)
    axes.set_yticks([(i + 0.5) * tall for i in range(len(rows))], rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def labelled_tiles(
    images: Array, bounds: tuple[float, float], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Images ``(row, column, *x_shape)`` with names of rows and columns."""
    side = min(0.72, 7.0 / images.shape[1])
    size = (max(side * images.shape[1] + 0.7, 2.4), side * images.shape[0] + (0.65 if columns else 0.4))
    figure = Figure(figsize=size, layout="constrained")
    show_tiles(figure.subplots(), images, bounds, rows=rows, columns=columns)
    figure.suptitle(title)
    return figure
