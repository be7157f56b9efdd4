"""Rows that are read from where they are kept: an array file, a folder of images, the items of a torch `Dataset`."""

import hashlib
import io
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.data.sources import image_files, read_image, same_image

type Array = np.ndarray[Any, Any]

# What is read at once, where nothing else decides it; rows nearer than a page are read together with those between.
BLOCK_BYTES = 1 << 17
_PAGE_BYTES = 1 << 12
_PASS_BYTES = 1 << 22
_DIGEST_BLOCKS, _DIGEST_ROWS = 64, 64
_BYTE = 255.0


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
    """Rows kept outside memory, ``(datum, *x_shape)``, in the types that torch computes with.

    Reading is safe from several threads. An error names the file, or the item, and what is wrong with it.

    Attributes:
        name: path, or what is read, for messages.
        x_shape: event shape of one row.
        dtype: of what `read` gives: bytes stay bytes, other integers are int64, floats keep their width up to 64 bits.
        labelled: whether `labels` gives any.
        about: facts a user should see (columns, classes).
        edges: first row of each piece that can only be read whole, and the number of rows; ``None`` where any row can
            be read alone.
    """

    name: str
    x_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    labelled: bool = False
    edges: Array | None = None

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}

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

    def ids(self, index: Array) -> Array:
        """Row of each in its source, ``(datum,)``."""
        return np.asarray(index, np.int64)

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
        return _BYTE if any(block.max() > 1 for block in self._pass()) else 1.0

    @cached_property
    def two_levels(self) -> bool:
        """Whether all values are 0 or `top`, where there is one; rows are read until a value is neither."""
        if self.top is None:
            return False
        return all(bool(((block == 0) | (block == self.top)).all()) for block in self._pass())

    @cached_property
    def extent(self) -> Extent:
        """What the values reach: one pass over all rows, in blocks.

        Raises:
            ValueError: a value is not finite; the message counts them and names the first.
        """
        low, high, integral = np.inf, -np.inf, True
        bad, first, start = 0, "", 0
        for block in self._pass():
            least, most = float(block.min()), float(block.max())
            if not np.isfinite([least, most]).all():  # a NaN is the least and the most
                missing = ~np.isfinite(block)
                row, *place = np.argwhere(missing)[0].tolist()
                first = first or f"{block[missing][0]} at {(start + row, *place)}"
                bad += int(missing.sum())
            start += len(block)
            low, high = min(low, least), max(high, most)
            integral = integral and (block.dtype.kind != "f" or bool((block == np.rint(block)).all()))
        if bad:
            raise ValueError(
                f"{self.name}: {bad} values are not finite, the first {first}; impute them, or leave their rows out"
            )
        return Extent(low, high, integral)

    def _pass(self) -> Iterator[Array]:
        """All rows, in blocks."""
        size = max(_PASS_BYTES // self.row_bytes, 1)
        for start in range(0, len(self), size):
            yield self.read(start, min(start + size, len(self)))

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
        ValueError: the message names type and shape.
    """
    if dtype.kind not in "buif" or not 2 <= len(shape) <= 4:
        raise ValueError(
            f"{name} holds an array of type {dtype} and shape {shape}; wanted are numbers of shape (datum, *x_shape) "
            "with one to three dimensions for a datum"
        )
    if 0 in shape:
        raise ValueError(f"{name} holds no data: its shape is {shape}")


class ArrayFile(Store):
    """A ``.npy`` file, read by position, so that no page of it is mapped into the process.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an array file, pickled objects, no numbers, columns first, or fewer bytes than its header says.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = repr(str(path))
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise FileNotFoundError(f"no file {self.name}") from None
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        shape, columns_first, self._stored, self._offset = self._header()
        check_rows(self.name, shape, self._stored)
        if columns_first:
            raise ValueError(f"{self.name} is stored by columns; save it with numpy.ascontiguousarray to read by rows")
        self._size, self.x_shape = shape[0], shape[1:]
        self.dtype = native_type(self._stored)
        wanted, there = self._offset + prod(shape) * self._stored.itemsize, os.fstat(descriptor).st_size
        if there < wanted:
            raise ValueError(f"cannot read {self.name}: it has {there} bytes, and its header asks for {wanted}")

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        start = io.BytesIO(os.pread(self._descriptor, 1 << 16, 0))
        try:
            version = np.lib.format.read_magic(start)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = read(start)
        except ValueError as error:
            raise ValueError(f"cannot read {self.name}: {error}") from None
        if dtype.hasobject:
            raise ValueError(f"cannot read {self.name}: it holds pickled objects, which could execute; save numbers")
        return shape, columns_first and len(shape) > 1, dtype, start.tell()

    def __len__(self) -> int:
        return self._size

    def __reduce__(self) -> Any:
        return type(self), (self.path,)

    def read(self, start: int, stop: int) -> Array:
        """See `Store.read`."""
        found = np.empty((stop - start, *self.x_shape), self._stored)
        at, width = 0, prod(self.x_shape) * self._stored.itemsize
        view = memoryview(found.view(np.uint8).reshape(-1))
        while at < len(view):
            try:
                count = os.preadv(self._descriptor, [view[at:]], self._offset + start * width + at)
            except OSError as error:
                raise ValueError(f"cannot read {self.name}, rows {start} to {stop}: {error}") from None
            if count == 0:
                raise ValueError(f"cannot read {self.name}, rows {start} to {stop}: the file has been cut")
            at += count
        return native(found)


class ImageFolder(Store):
    """A folder of images of one size, whose sub-folders, if any, are classes.

    The names of the files are held, the pictures are read when they are asked for.

    Args:
        path: of the folder.

    Raises:
        ValueError: no image, or a first one that cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = f"folder {str(path)!r}"
        self._files = [str(file.relative_to(self.path)) for file in image_files(self.path)]
        self._first = read_image(self.path / self._files[0])
        self.x_shape, self.dtype = self._first.shape, native_type(self._first.dtype)
        classes = sorted({Path(file).parent.name or self.path.name for file in self._files})
        self._classes = {name: number for number, name in enumerate(classes)}
        self.labelled = len(classes) > 1
        if self.labelled:
            self.about = {"classes": classes}

    def __len__(self) -> int:
        return len(self._files)

    @property
    def kind(self) -> str:
        """``image``."""
        return "image"

    @cached_property
    def top(self) -> float | None:
        """Full intensity of the depth of the images."""
        return float(np.iinfo(self._first.dtype).max)

    def read(self, start: int, stop: int) -> Array:
        """See `Store.read`."""
        found = np.empty((stop - start, *self.x_shape), self.dtype)
        for place, file in enumerate(self._files[start:stop]):
            image = read_image(self.path / file)
            same_image(self.path / self._files[0], self._first, self.path / file, image)
            found[place] = image
        return found

    def rows(self, index: Array) -> Array:
        """See `Store.rows`; each is a file of its own."""
        return _one_by_one(self, index)

    def labels(self, index: Array) -> Array | None:
        """Number of the class of each."""
        if not self.labelled:
            return None
        names = (Path(self._files[int(i)]).parent.name or self.path.name for i in index)
        return np.asarray([self._classes[name] for name in names])


class Items(Store):
    """The items of a map-style torch ``Dataset``, or of any object with ``__len__`` and ``__getitem__``.

    An item is a tensor, an array or a picture, or a tuple that begins with one, whose second entry is then its label
    where it is an integer. All items have the shape and type of the first. ``targets`` (torchvision's name) gives the
    labels without reading items. One thread reads, through ``__getitems__`` where there is one; items that change
    from one reading to the next (random augmentation) are read anew in each epoch, and checked as they were at first.

    Args:
        dataset: what to read.

    Raises:
        ValueError: no items, or a first one that is no data.
    """

    def __init__(self, dataset: Any) -> None:
        from PIL.Image import Image

        super().__init__()
        self.dataset, self._picture = dataset, Image
        self.name = f"{type(dataset).__name__} dataset"
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise ValueError(f"{self.name} has no __getitem__ and __len__; a map-style dataset is wanted")
        if len(dataset) == 0:
            raise ValueError(f"{self.name} holds no data")
        first, label = self._item(0)
        check_rows(f"{self.name}, item 0,", (len(dataset), *first.shape), first.dtype)
        self._stored, self.x_shape, self.dtype = first.dtype, first.shape, native_type(first.dtype)
        self.labelled = label is not None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, start: int, stop: int) -> Array:
        """See `Store.read`."""
        return self.rows(np.arange(start, stop))

    def rows(self, index: Array) -> Array:
        """See `Store.rows`."""
        found = np.empty((len(index), *self.x_shape), self.dtype)
        for place, (number, item) in enumerate(self._items(index)):
            value, _ = self._taken(number, item)
            if value.shape != self.x_shape or value.dtype != self._stored:
                raise ValueError(
                    f"{self.name}: item {number} is {value.dtype} {value.shape}, item 0 is {self._stored} "
                    f"{self.x_shape}; bring them to one shape and type"
                )
            found[place] = value
        return found

    def labels(self, index: Array) -> Array | None:
        """See `Store.labels`."""
        if not self.labelled:
            return None
        targets = getattr(self.dataset, "targets", None)
        if targets is not None and len(targets) == len(self):
            return np.asarray(targets)[np.asarray(index)]
        return np.asarray([self._taken(number, item)[1] for number, item in self._items(index)])

    def _items(self, index: Array) -> Iterator[tuple[int, Any]]:
        numbers = [int(number) for number in index]
        together = getattr(self.dataset, "__getitems__", None)
        if together is None:
            for number in numbers:
                yield number, self._get(number)
            return
        try:
            found = together(numbers)
        except Exception as error:
            raise self._broken(f"items {numbers[0]} to {numbers[-1]}", error) from error
        yield from zip(numbers, found, strict=True)

    def _get(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except Exception as error:
            raise self._broken(f"item {number}", error) from error

    def _broken(self, what: str, error: Exception) -> ValueError:
        return ValueError(f"{self.name}: {what} cannot be read, {type(error).__name__}: {error}")

    def _item(self, number: int) -> tuple[Array, int | None]:
        return self._taken(number, self._get(number))

    def _taken(self, number: int, item: Any) -> tuple[Array, int | None]:
        value, label = item, None
        if isinstance(item, tuple | list) and item:
            value, second = item[0], item[1] if len(item) > 1 else None
            if second is not None and np.ndim(second) == 0 and np.asarray(second).dtype.kind in "bui":
                label = int(second)
        array = np.asarray(value)
        if isinstance(value, self._picture):
            array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if array.dtype.kind not in "buif":
            raise ValueError(f"{self.name}: item {number} is a {type(value).__name__}; wanted is a tensor or an array")
        return array, label


def _one_by_one(store: Store, index: Array) -> Array:
    found = np.empty((len(index), *store.x_shape), store.dtype)
    for place, row in enumerate(index):
        found[place] = store.read(int(row), int(row) + 1)[0]
    return found
