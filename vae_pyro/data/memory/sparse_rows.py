"""Compressed sparse rows (CSR), made dense when they are indexed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.data.readers.sparse_npz import require_consistent
from vae_pyro.data.readers.store import native_type

# Entries that one pass over all of them takes at once.
_ENTRIES = 1 << 22


def entry_blocks(count: int) -> Iterator[slice]:
    """Consecutive entries, all ``count`` of them, so many at a time."""
    for begin in range(0, count, _ENTRIES):
        yield slice(begin, min(begin + _ENTRIES, count))


class SparseRows:
    """A matrix in compressed sparse rows that gives dense rows when it is indexed, as a tensor does.

    The form is canonical: columns rise within a row, none twice, and no zero is stored; so equal matrices have equal
    entries. Memory is that of the entries.

    Args:
        start: where the entries of each row begin, and their number, ``(datum + 1,)`` of int64.
        column: of each entry, int32 where the columns allow it.
        entry: their values; bytes stay bytes, other integers are int64.
        columns: number of columns.

    Attributes:
        longest: entries of the row that has most.
    """

    def __init__(self, start: Tensor, column: Tensor, entry: Tensor, columns: int) -> None:
        self.start, self.column, self.entry, self.columns = start, column, entry, columns
        self.longest = int(start.diff().max()) if len(start) > 1 else 0

    def __repr__(self) -> str:
        share = self.nnz / max(len(self) * self.columns, 1)
        return f"SparseRows({len(self)} x {self.columns}, {self.dtype}, {self.nnz} entries, {share:.2g} of all)"

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return len(self.entry)

    @property
    def shape(self) -> torch.Size:
        """``(datum, column)``."""
        return torch.Size((len(self), self.columns))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.entry.dtype

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.entry.device

    def numel(self) -> int:
        """Number of elements, the zeros among them."""
        return len(self) * self.columns

    def to(self, device: torch.device) -> "SparseRows":
        """The same rows on another device."""
        return SparseRows(self.start.to(device), self.column.to(device), self.entry.to(device), self.columns)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Some rows, dense, ``(len(index), column)``.

        On a GPU nothing here depends on values, so that a graph of the step can hold it: every row is read as if it had
        as many entries as the longest, and what is too much falls into a place that is cut off.

        Args:
            dim: 0.
            index: rows, not negative.
        """
        if dim != 0:
            raise ValueError(f"sparse data are indexed by rows, dim 0; got dim {dim}")
        count = len(index)
        begin = self.start[index]
        length = self.start[index + 1] - begin
        longest = self.longest if self.device.type != "cpu" else (int(length.max()) if count else 0)
        dense = torch.zeros(count * self.columns + 1, dtype=self.dtype, device=self.device)
        if longest:
            offset = torch.arange(longest, device=self.device)
            inside = offset < length.unsqueeze(1)
            source = (begin.unsqueeze(1) + offset).clamp(max=self.nnz - 1)
            row = torch.arange(count, device=self.device).unsqueeze(1) * self.columns
            target = torch.where(inside, row + self.column[source], count * self.columns)
            dense.scatter_(0, target.flatten(), self.entry[source].flatten())
        return dense[:-1].view(count, self.columns)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Some rows, dense; one of shape ``(column,)`` for an integer.

        Raises:
            IndexError: rows that are not there, or a mask that is not one of all rows.
        """
        if isinstance(index, int):
            return self[index : index + 1 or None][0]
        return self.index_select(0, self._rows(index))

    def _rows(self, index: slice | Tensor) -> Tensor:
        if isinstance(index, slice):
            return torch.arange(*index.indices(len(self)), device=self.device)
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise IndexError(f"a mask of {len(self)} rows is expected, got one of shape {tuple(index.shape)}")
            return index.nonzero().squeeze(1)
        if len(index) and not bool(((index >= -len(self)) & (index < len(self))).all()):
            raise IndexError(f"rows {int(index.min())} to {int(index.max())} are not all among {len(self)}")
        return torch.where(index < 0, index + len(self), index)

    def between(self, start: int, stop: int) -> "SparseRows":
        """Consecutive rows, sparse; the entries are not copied."""
        start, stop, _ = slice(start, stop).indices(len(self))
        ends = self.start[start : max(stop, start) + 1]
        first, last = int(ends[0]), int(ends[-1])
        return SparseRows(ends - first, self.column[first:last], self.entry[first:last], self.columns)

    def place(self, number: int) -> tuple[int, int]:
        """Row and column of an entry."""
        row = int(torch.searchsorted(self.start, torch.tensor(number, device=self.device), right=True)) - 1
        return row, int(self.column[number])

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sparse data have no {name!r}, which requires all values dense in memory; pass a part of them, such as "
            "split.take(slice(1000)) or split.sample(1000, seed=0)"
        )

    @classmethod
    def of(cls, matrix: Any) -> "SparseRows":
        """From a scipy sparse matrix or array of any format, or a torch sparse tensor; entries are copied where needed.

        Raises:
            ValueError: not two dimensions, no numbers, no columns, or indices outside the matrix.
        """
        from scipy import sparse

        if isinstance(matrix, Tensor):
            matrix = _of_torch(matrix)
        if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "buif":
            raise ValueError(
                f"sparse data of shape (datum, column) and of numbers expected, got {matrix.shape} of {matrix.dtype}"
            )
        try:
            require_consistent(matrix)
        except ValueError as error:
            raise ValueError(f"the sparse matrix is damaged: {error}") from None
        rows = sparse.csr_array(matrix)
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
        if rows.nnz and not rows.data.all():
            rows = rows.copy()
            rows.eliminate_zeros()
        column = rows.indices.astype(np.int32 if matrix.shape[1] <= np.iinfo(np.int32).max else np.int64, copy=False)
        start, column, entry = (
            torch.from_numpy(np.ascontiguousarray(part))
            for part in (rows.indptr.astype(np.int64), column, rows.data.astype(native_type(rows.dtype), copy=False))
        )
        return cls(start, column, entry, matrix.shape[1])


def _of_torch(tensor: Tensor) -> Any:
    from scipy import sparse

    tensor = tensor.detach().cpu()
    if tensor.layout == torch.strided:
        return sparse.csr_array(tensor.numpy())
    if tensor.layout == torch.sparse_csr:
        rows = (tensor.values().numpy(), tensor.col_indices().numpy(), tensor.crow_indices().numpy())
        return sparse.csr_array(rows, shape=tuple(tensor.shape))
    entries = tensor.to_sparse_coo().coalesce()
    return sparse.coo_array((entries.values().numpy(), tuple(entries.indices().numpy())), shape=tuple(tensor.shape))


def is_sparse(x: Any) -> bool:
    """Whether ``x`` is a scipy sparse matrix or array, or a torch tensor of a sparse layout."""
    if isinstance(x, Tensor):
        return x.layout != torch.strided
    from scipy import sparse

    return bool(sparse.issparse(x))
