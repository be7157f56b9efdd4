"""Test statistics by name: what a predictive check compares between data and replications, one number for each datum.

A statistic of a data set is an aggregate over data of a statistic of each datum, so that replications of any size can
be measured as they are drawn and thrown away, and weighted afterwards. NaN means that an element was not observed.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from analysis.stats.elements import Elements
from vae_pyro.core.registry import Choice, Registry

type Array = np.ndarray[Any, Any]

STATISTICS: Registry[Array] = Registry("statistic")
AGGREGATES = ("mean", "sd")

_BASIC = ("mean", "sd", "min", "max", "zeros")
_OF_IMAGES = ("neighbours", "left_right", "up_down")


def is_image(event: tuple[int, ...]) -> bool:
    """Whether data of this shape have rows and columns with neighbours."""
    return len(event) >= 2 and min(event[-2:]) >= 2


def default_statistics(x_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Statistics that data of this shape are measured by where nothing else is asked."""
    return _BASIC + (_OF_IMAGES if is_image(x_shape) else ())


def canonical(name: str | Mapping[str, Any]) -> str:
    """A statistic's name with its options spelled out, as trees and results call it.

    Raises:
        ValueError: unknown name or option; the message lists what is known.

    >>> canonical("quantile")
    'quantile:q=0.5'
    """
    return str(STATISTICS.resolve(name))


def measure(x: Array, names: Iterable[str | Choice], *, event_dim: int) -> dict[str, Array]:
    """Statistics of each datum.

    Args:
        x: ``(*batch, *event)``; NaN where an element is not observed.
        names: of `STATISTICS`, with options where they have some (``quantile:q=0.9``), or as `STATISTICS` resolved
            them.
        event_dim: number of event dimensions.

    Returns:
        ``{name: array}``, each of shape ``batch``, float64; NaN for a datum of which nothing is observed. Float32 data
        are measured with float32's digits.

    Raises:
        ValueError: an unknown name, or a statistic of images for other data.

    >>> measure(np.array([[0.0, 1.0, 5.0], [2.0, np.nan, 4.0]]), ["mean", "zeros"], event_dim=1)
    {'mean': array([2., 3.]), 'zeros': array([0.33333333, 0.        ])}
    """
    elements = Elements(x, event_dim)
    chosen = [(str(name), name if isinstance(name, Choice) else STATISTICS.resolve(name)) for name in names]
    return {name: np.asarray(STATISTICS.build(choice, elements), dtype=np.float64) for name, choice in chosen}


def aggregate(values: Array, how: str = "mean") -> Array:
    """Statistic of each data set: mean or standard deviation over data of a statistic of each datum.

    Args:
        values: ``(*batch, datum)``; data of which nothing is observed are NaN and left out.
        how: one of `AGGREGATES`.

    Returns:
        Shape ``batch``, float64.

    Raises:
        ValueError: another aggregate.
    """
    if how not in AGGREGATES:
        raise ValueError(f"unknown aggregate {how!r}; choose from {', '.join(AGGREGATES)}")
    over_data = Elements(values, 1)
    result: Array = over_data.total / over_data.count if how == "mean" else np.sqrt(over_data.squares / over_data.count)
    return result


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The ratio, zero where the denominator is, NaN where it is NaN."""
    out = np.where(np.isnan(denominator), np.nan, 0.0)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


@STATISTICS.register("mean")
def mean(x: Elements) -> Array:
    """Mean of the elements."""
    return x.total / x.count


@STATISTICS.register("sd")
def sd(x: Elements) -> Array:
    """Standard deviation of the elements of one datum about their own mean, divisor n."""
    return np.sqrt(x.squares / x.count)


@STATISTICS.register("min")
def minimum(x: Elements) -> Array:
    """Smallest element."""
    return x.filled(np.inf).min(-1) + 0 * x.count


@STATISTICS.register("max")
def maximum(x: Elements) -> Array:
    """Largest element."""
    return x.filled(-np.inf).max(-1) + 0 * x.count


@STATISTICS.register("zeros")
def zeros(x: Elements) -> Array:
    """Share of elements that are exactly zero."""
    return (x.flat.shape[-1] - np.count_nonzero(x.filled(1.0), axis=-1)) / x.count


@STATISTICS.register("intensity")
def intensity(x: Elements) -> Array:
    """Sum of the elements."""
    return x.total


@STATISTICS.register("sparsity")
def sparsity(x: Elements) -> Array:
    """Hoyer's sparsity, (sqrt(n) - l1 / l2) / (sqrt(n) - 1): 0 where all magnitudes are equal, 1 for one of them alone.

    Zero for a datum that is zero everywhere or has a single element.

    References:
        Hoyer 2004, Non-negative matrix factorization with sparseness constraints, JMLR 5, sec. 3.1.
    """
    l1 = np.add.reduce(np.abs(x.flat), axis=-1, dtype=np.float64)
    l2 = np.sqrt(np.vecdot(x.flat, x.flat).astype(np.float64))
    root = np.sqrt(x.count)
    return np.where(l2 > 0, _ratio(root - _ratio(l1, l2), root - 1), 0.0) + 0 * x.count


@STATISTICS.register("quantile")
def quantile(x: Elements, *, q: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Array:
    """Quantile of the elements, linear between order statistics.

    Args:
        x: the data.
        q: level.
    """
    place = q * (np.nan_to_num(x.count, nan=1.0) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.ceil(place).astype(np.int64))
    nothing = np.isnan(x.count)
    low, high = (
        np.where(nothing, 0.0, np.take_along_axis(x.ordered, i[..., None], -1)[..., 0].astype(np.float64))
        for i in (below, above)
    )
    step = place - below
    return (1 - step) * low + step * high + 0 * x.count


@STATISTICS.register("q05")
def q05(x: Elements) -> Array:
    """5 % quantile of the elements."""
    return quantile(x, q=0.05)


@STATISTICS.register("q50")
def q50(x: Elements) -> Array:
    """Median of the elements."""
    return quantile(x, q=0.5)


@STATISTICS.register("q95")
def q95(x: Elements) -> Array:
    """95 % quantile of the elements."""
    return quantile(x, q=0.95)


@STATISTICS.register("neighbours")
def neighbours(x: Elements) -> Array:
    """Correlation of pixels that share an edge (Moran's I with rook neighbours), channel by channel.

    Near 1 where neighbours are alike, -1 / (n - 1) on average for exchangeable pixels; zero for a constant image.

    References:
        Moran 1950, Notes on continuous stochastic phenomena, Biometrika 37. doi:10.1093/biomet/37.1-2.17
    """
    centred = _as_images(x, x.centred)
    seen = None if x.seen is None else _as_images(x, x.seen)
    product: Array | float = 0.0
    pairs: Array | float = 0.0
    for axis in (-1, -2):
        size = centred.shape[axis]
        first, second = (_cut(centred, axis, piece) for piece in (slice(0, size - 1), slice(1, size)))
        product = product + np.einsum("...crk,...crk->...", first, second)
        if seen is None:
            pairs += prod(first.shape[-3:])
        else:
            both = _cut(seen, axis, slice(0, size - 1)) & _cut(seen, axis, slice(1, size))
            pairs = pairs + np.count_nonzero(both, axis=(-3, -2, -1))
    return _ratio(np.asarray(product, dtype=np.float64) * x.count, x.squares * np.asarray(pairs, dtype=np.float64))


def _as_images(x: Elements, flat: Array) -> Array:
    """``flat``, of the shape of ``x.flat``, as images ``(*batch, channel, row, column)``.

    Raises:
        ValueError: the data are no images.
    """
    if not is_image(x.event):
        raise ValueError(
            f"this statistic is of images (..., rows, columns), and a datum has shape {x.event}; choose from "
            f"{', '.join(name for name in STATISTICS if name not in _OF_IMAGES)}"
        )
    return flat.reshape(*flat.shape[:-1], -1, *x.event[-2:])


def _cut(x: Array, axis: int, piece: slice) -> Array:
    return x[..., piece] if axis == -1 else x[..., piece, :]


@STATISTICS.register("left_right")
def left_right(x: Elements) -> Array:
    """Left-right symmetry: correlation of an image with its mirror image; zero for a constant image."""
    return _mirror(x, -1)


@STATISTICS.register("up_down")
def up_down(x: Elements) -> Array:
    """Up-down symmetry: correlation of an image with itself upside down; zero for a constant image."""
    return _mirror(x, -2)


def _mirror(x: Elements, axis: int) -> Array:
    centred = _as_images(x, x.centred)
    product = np.einsum("...crk,...crk->...", centred, np.flip(centred, axis)).astype(np.float64)
    if x.seen is None:
        return _ratio(product, x.squares)
    seen = _as_images(x, x.seen)
    both = centred * (seen & np.flip(seen, axis))
    return _ratio(product, np.einsum("...crk,...crk->...", both, both).astype(np.float64) + 0 * x.count)
