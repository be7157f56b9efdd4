"""Rows that a reader opens: where they are kept is its own affair, and what is done with them is not."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from vae_pyro.data.facts import About

type Array = np.ndarray[Any, Any]

# What is read at once, where nothing else decides it; rows nearer than a page are read together with those between.
BLOCK_BYTES = 1 << 17
_PAGE_BYTES = 1 << 12
_PASS_BYTES = 1 << 22
_DIGEST_BLOCKS, _DIGEST_ROWS = 64, 64
_BYTE = 255.0
# Numbers of channels of an image: grey, RGB, RGBA.
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Extent:
    """What stored values reach, over all of them.

    Attributes:
        low: smallest value.
        high: largest value.
        integral: whether all are integers.
    """

    low: float
    high: float
    integral: bool


class Store(ABC):
    """Rows ``(datum, *x_shape)`` in the types that torch computes with, wherever they are kept.

    Splits in memory are read from one in a single pass, streamed ones block by block. Reading is safe from several
    threads. An error names the file, or the item, and what is wrong with it.

    Attributes:
        name: path, or what is read, for messages.
        x_shape: event shape of one row.
        dtype: of what `read` gives: bytes stay bytes, other integers are int64, floats keep their width up to 64 bits.
        labelled: whether `labels` gives any.
        about: what a user should know of them: columns, classes.
        edges: first row of each piece that can only be read whole, and the number of rows; ``None`` where any row can
            be read alone.
        prefers_streaming: whether they are streamed where a user does not say.
        test: rows that the source itself holds out for testing, where it does.
        matrix: all rows as a ``scipy.sparse.csr_array``, where they are kept so; ``None`` for dense rows.
    """

    name: str
    x_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    labelled: bool = False
    edges: Array | None = None
    prefers_streaming: bool = False
    test: "Store | None" = None
    matrix: Any = None

    def __init__(self) -> None:
        self.about = About()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Consecutive rows, an array that nobody else writes to.

        Raises:
            ValueError: the rows cannot be read.
        """

    def rows(self, index: Array) -> Array:
        """Any rows, in the order of ``index``."""
        return _by_runs(self, np.asarray(index, np.int64))

    def labels(self, index: Array) -> Array | None:
        """Labels of some rows, ``(datum,)``; ``None`` where there are none."""
        return None

    def mask(self, index: Array) -> Array | None:
        """Which elements of some rows are observed, where the source says so beside the values; NaN never is."""
        return None

    def ids(self, index: Array) -> Array:
        """Row of each in its source, ``(datum,)``."""
        return np.asarray(index, np.int64)

    def whole(self) -> "Store":
        """These rows, and after them those that the source holds out for testing."""
        return self

    @property
    def obstacle(self) -> str | None:
        """Why the rows cannot be read block by block, with the way out; ``None`` where they can."""
        return None

    def require_streaming(self) -> None:
        """Refuse rows that cannot be read block by block.

        Raises:
            ValueError: see `obstacle`.
        """
        if self.obstacle is not None:
            raise ValueError(self.obstacle)

    @property
    def kind(self) -> str:
        """``image`` or ``table``."""
        return "image" if len(self.x_shape) > 1 else "table"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.x_shape) * self.dtype.itemsize

    @property
    def block(self) -> int:
        """Rows to read at once."""
        return max(BLOCK_BYTES // self.row_bytes, 1)

    @property
    def borders(self) -> Array:
        """First rows of the blocks in which an epoch reads, and the number of rows."""
        return np.r_[np.arange(0, len(self), self.block), len(self)] if self.edges is None else self.edges

    @cached_property
    def top(self) -> float | None:
        """The value of full intensity of images of bytes: 1 where none is larger, else 255; ``None`` for others.

        Bytes are read until one is above 1.
        """
        if self.kind != "image" or self.dtype != np.uint8:
            return None
        return _BYTE if any(block.max() > 1 for _, block in self.blocks()) else 1.0

    @cached_property
    def two_levels(self) -> bool:
        """Whether all values are 0 or `top`, where there is one; rows are read until a value is neither."""
        if self.top is None:
            return False
        return all(bool(((block == 0) | (block == self.top)).all()) for _, block in self.blocks())

    @cached_property
    def extent(self) -> Extent:
        """What the values reach: one pass over all rows, in blocks.

        Raises:
            ValueError: a value is not finite; the message counts them and names the first.
        """
        low, high, integral = np.inf, -np.inf, True
        bad, first = 0, ""
        for start, block in self.blocks():
            least, most = float(block.min()), float(block.max())
            if not np.isfinite([least, most]).all():  # a NaN is the least and the most
                missing = ~np.isfinite(block)
                row, *place = np.argwhere(missing)[0].tolist()
                first = first or f"{block[missing][0]} at {(start + row, *place)}"
                bad += int(missing.sum())
            low, high = min(low, least), max(high, most)
            integral = integral and (block.dtype.kind != "f" or bool((block == np.rint(block)).all()))
        if bad:
            raise ValueError(
                f"{self.name}: {bad} values are not finite, the first {first}; impute them, or leave their rows out"
            )
        return Extent(low, high, integral)

    @property
    def reach(self) -> tuple[float, float]:
        """Smallest and largest value, NaN left out; one pass over all rows."""
        low, high = np.inf, -np.inf
        for _, block in self.blocks():
            seen = block if block.dtype.kind != "f" else block[~np.isnan(block)]
            if seen.size:
                low, high = min(low, float(seen.min())), max(high, float(seen.max()))
        return low, high

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """All rows, in blocks of a few megabytes: number of the first, and the rows."""
        size = max(_PASS_BYTES // self.row_bytes, 1)
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))

    def digest(self) -> str:
        """SHA-256 by which a run notices that its data have changed.

        It covers size, shape, type and the rows of 64 short blocks, which are the same at every call, not every value:
        what has changed outside them alone goes unnoticed. Times of modification are no content, and stay out.
        """
        digest = hashlib.sha256(repr((self.kind, len(self), self.x_shape, self.dtype.str)).encode())
        size = min(self.block, _DIGEST_ROWS)
        last = max(len(self) - size, 0)
        starts = np.unique(np.r_[0, np.random.default_rng(0).integers(0, last + 1, _DIGEST_BLOCKS - 2), last])
        for start in starts.tolist():
            digest.update(np.ascontiguousarray(self.read(start, min(start + size, len(self)))).tobytes())
        return digest.hexdigest()


def _by_runs(store: Store, index: Array) -> Array:
    """Rows by reads of runs, in which rows may be left out that are cheaper read than passed over."""
    order, steps = None, np.diff(index)
    if not (steps > 0).all():
        order = np.argsort(index, kind="stable")
        index = index[order]
        steps = np.diff(index)
    found = np.empty((len(index), *store.x_shape), store.dtype)
    far = steps > 1 + _PAGE_BYTES // store.row_bytes
    span = max(_PASS_BYTES // store.row_bytes, 1)
    if len(index) and index[-1] - index[0] >= span:
        far |= np.diff(index // span) > 0
    ends = [*(np.flatnonzero(far) + 1).tolist(), len(index)] if len(index) else []
    start = 0
    for stop in ends:
        first = int(index[start])
        block = store.read(first, int(index[stop - 1]) + 1)
        # Nothing is out of bounds, and the mode that would notice copies twice.
        np.take(block, index[start:stop] - first, axis=0, out=found[start:stop], mode="clip")
        start = stop
    if order is None:
        return found
    back = np.empty_like(found)
    back[order] = found
    return back


def one_by_one(store: Store, index: Array) -> Array:
    """Rows of which each is read alone."""
    found = np.empty((len(index), *store.x_shape), store.dtype)
    for place, row in enumerate(index):
        found[place] = store.read(int(row), int(row) + 1)[0]
    return found


def native(values: Array) -> Array:
    """Numbers in a type that torch computes with."""
    if values.dtype == np.bool_:
        return values.view(np.uint8) if values.flags.c_contiguous else values.astype(np.uint8)
    return np.ascontiguousarray(values, native_type(values.dtype))


def native_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of `native`, see `Store`."""
    if dtype in (np.bool_, np.uint8):
        return np.dtype(np.uint8)
    if dtype.kind in "ui":
        return np.dtype(np.int64)
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def check_rows(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse what is no array of data.

    Raises:
        ValueError: the message names type and shape; or see `check_layout`.
    """
    if dtype.kind not in "buif" or not 2 <= len(shape) <= 4:
        raise ValueError(
            f"{name} holds an array of type {dtype} and shape {shape}; expected are numbers of shape (datum, *x_shape) "
            "with one to three dimensions for a datum"
        )
    if 0 in shape:
        raise ValueError(f"{name} holds no data: its shape is {shape}")
    check_layout(name, shape)


def check_layout(name: str, shape: tuple[int, ...]) -> None:
    """Refuse images with their channels last, which would be taken for narrow ones of many channels.

    Raises:
        ValueError: the message names the shape, and how to turn it.
    """
    if len(shape) == 4 and shape[3] in _CHANNELS and shape[1] not in _CHANNELS and min(shape[1:3]) > max(_CHANNELS):
        raise ValueError(
            f"{name} has shape {shape}, which is that of images with their channels last; expected is (datum, "
            "channels, height, width): pass numpy.moveaxis(x, -1, 1)"
        )
