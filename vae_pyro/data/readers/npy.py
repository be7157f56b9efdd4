"""``.npy`` files."""

import io
import os
import weakref
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Array, Store, check_rows, native, native_type

# A file of so many bytes is streamed where nobody says otherwise.
STREAM_BYTES = 1 << 31


@READERS.register("npy")
class NpyReader(Reader):
    """An array ``(datum, *x_shape)``."""

    expects = "a .npy file"
    suffixes = (".npy",)
    streams = True

    def open(self, source: Path) -> Store:
        return ArrayFile(source)


class ArrayFile(Store):
    """A ``.npy`` file, read by position, so that no page of it is mapped into the process.

    One that is stored by columns is held in memory once rows of it are read.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an array file, pickled objects, no numbers, or fewer bytes than its header says.
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
        shape, self._by_columns, self._stored, self._offset = self._header()
        check_rows(self.name, shape, self._stored)
        self._size, self.x_shape = shape[0], shape[1:]
        self.dtype = native_type(self._stored)
        self.prefers_streaming = os.fstat(descriptor).st_size >= STREAM_BYTES
        needed, there = self._offset + prod(shape) * self._stored.itemsize, os.fstat(descriptor).st_size
        if there < needed:
            raise ValueError(f"cannot read {self.name}: it has {there} bytes, and its header asks for {needed}")

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        start = io.BytesIO(os.pread(self._descriptor, 1 << 16, 0))
        try:
            version = np.lib.format.read_magic(start)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(start)
        except ValueError as error:
            raise ValueError(f"cannot read {self.name}: {error}") from None
        if dtype.hasobject:
            raise ValueError(f"cannot read {self.name}: it holds pickled objects, which could execute; save numbers")
        return shape, by_columns and len(shape) > 1, dtype, start.tell()

    def __len__(self) -> int:
        return self._size

    def __reduce__(self) -> Any:
        return type(self), (self.path,)

    @property
    def obstacle(self) -> str | None:
        """A file that is stored by columns."""
        if not self._by_columns:
            return None
        return f"{self.name} is stored by columns; save it with numpy.ascontiguousarray to read by rows"

    @cached_property
    def _whole(self) -> Array:
        found: Array = np.load(self.path, allow_pickle=False)
        return found

    def read(self, start: int, stop: int) -> Array:
        if self._by_columns:
            return native(self._whole[start:stop])
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
