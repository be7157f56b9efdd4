"""``.npz`` files of sparse matrices."""

from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vae_pyro.core.memory import require_memory
from vae_pyro.data.facts import About
from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.arrays import coded
from vae_pyro.data.readers.npz import require_members_within_memory
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Array, Store, native, native_type


@READERS.register("sparse npz")
class SparseReader(Reader):
    """A matrix that `scipy.sparse.save_npz` wrote, and the array ``y`` (labels) where one was added."""

    expects = "a .npz file of scipy.sparse.save_npz"
    suffixes = (".npz",)

    def recognises(self, source: Any) -> bool:
        """By the arrays that it holds."""
        if not super().recognises(source) or not source.is_file():
            return False
        try:
            with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return "format" in arrays and "shape" in arrays and "data" in arrays
        except (OSError, ValueError, EOFError, BadZipFile):  # the reader of dense arrays says what is wrong
            return False

    def open(self, source: Path) -> Store:
        """See `Reader.open`; nothing is unpickled."""
        from scipy import sparse

        name = repr(str(source))
        try:
            require_members_within_memory(source)
            with np.load(source, allow_pickle=False) as arrays:
                rows = int(np.asarray(arrays["shape"]).ravel()[0])
            require_memory(8 * rows, f"{name}: the row pointers of {rows:,} rows")
            loaded = sparse.load_npz(source)
            require_consistent(loaded)
            matrix = sparse.csr_array(loaded)
            with np.load(source, allow_pickle=False) as arrays:
                labels = arrays.get("y")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError, EOFError) as error:
            raise ValueError(f"cannot read the sparse matrix {name}: {error}") from None
        if matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind not in "buif":
            raise ValueError(f"{name} holds a sparse {matrix.dtype} of shape {matrix.shape}; expected are numbers")
        return SparseStore(name, matrix, labels)


class SparseStore(Store):
    """Rows of a sparse matrix in memory.

    Args:
        name: of the source, for messages.
        matrix: a ``scipy.sparse.csr_array``.
        labels: ``(datum,)``; names are coded in their order.

    Raises:
        ValueError: labels of another shape.
    """

    def __init__(self, name: str, matrix: Any, labels: Array | None = None) -> None:
        super().__init__()
        self._labels, classes = coded(name, labels, matrix.shape[0])
        self.name, self.matrix, self.labelled = name, matrix, labels is not None
        self.x_shape, self.dtype = (matrix.shape[1],), native_type(matrix.dtype)
        self.about = About(sparse=True, entries=int(matrix.nnz), classes=classes)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def read(self, start: int, stop: int) -> Array:
        return native(self.matrix[start:stop].toarray())

    def labels(self, index: Array) -> Array | None:
        return None if self._labels is None else self._labels[index]

    @cached_property
    def reach(self) -> tuple[float, float]:
        """See `Store.reach`; of the entries, and of the zeros that are not stored."""
        entries = self.matrix.data
        seen = entries if entries.dtype.kind != "f" else entries[~np.isnan(entries)]
        zero = [0.0] if self.matrix.nnz < np.prod(self.matrix.shape) else []
        values = [*zero, *((float(seen.min()), float(seen.max())) if seen.size else ())]
        return min(values), max(values)


def require_consistent(matrix: Any) -> None:
    """Refuse a sparse matrix whose indices point outside it: scipy would read and write other memory without a word.

    Args:
        matrix: of ``scipy.sparse``, in any format.

    Raises:
        ValueError: the message names the first index.
    """
    if matrix.format in ("csr", "csc", "bsr"):
        block = matrix.blocksize if matrix.format == "bsr" else (1, 1)
        lines, places = matrix.shape[0] // block[0], matrix.shape[1] // block[1]
        across = ("row", "column")
        if matrix.format == "csc":
            lines, places, across = places, lines, ("column", "row")
        start = matrix.indptr
        falls = len(start) != lines + 1 or start[0] != 0 or bool((np.diff(start) < 0).any())
        if falls or start[-1] > min(len(matrix.indices), len(matrix.data)):
            raise ValueError(f"where its {across[0]}s begin (indptr) does not rise from 0 to the number of its entries")
        _require_within(matrix.indices[: start[-1]], places, across[1])
    elif matrix.format == "coo":
        for places, size, name in zip(matrix.coords, matrix.shape, ("row", "column"), strict=False):
            _require_within(places, size, name)


def _require_within(index: Array, size: int, name: str) -> None:
    if len(index) and not (index.min() >= 0 and index.max() < size):
        entry = int(np.flatnonzero((index < 0) | (index >= size))[0])
        raise ValueError(f"entry {entry} has the {name} {index[entry]}, and there are {size}")
