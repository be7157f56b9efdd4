"""Data that are mostly zeros: kept as compressed sparse rows (CSR), made dense a batch at a time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from vae_pyro.data.split import Split, row_blocks
from vae_pyro.data.summary import DataSummary

# Entries that one pass over all of them takes at once.
_ENTRIES = 1 << 22


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
        """Some rows, dense; one of shape ``(column,)`` where an integer is asked for.

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
                raise IndexError(f"a mask of {len(self)} rows is wanted, got one of shape {tuple(index.shape)}")
            return index.nonzero().squeeze(1)
        if len(index) and not bool(((index >= -len(self)) & (index < len(self))).all()):
            raise IndexError(f"rows {int(index.min())} to {int(index.max())} are wanted of {len(self)}")
        return torch.where(index < 0, index + len(self), index)

    def between(self, start: int, stop: int) -> "SparseRows":
        """Consecutive rows, sparse; the entries are not copied."""
        start, stop, _ = slice(start, stop).indices(len(self))
        ends = self.start[start : max(stop, start) + 1]
        first, last = int(ends[0]), int(ends[-1])
        return SparseRows(ends - first, self.column[first:last], self.entry[first:last], self.columns)

    def blocks(self) -> Iterator[Tensor]:
        """The entries, so many at a time."""
        for begin in range(0, self.nnz, _ENTRIES):
            yield self.entry[begin : begin + _ENTRIES]

    def place(self, number: int) -> tuple[int, int]:
        """Row and column of an entry."""
        row = int(torch.searchsorted(self.start, torch.tensor(number, device=self.device), right=True)) - 1
        return row, int(self.column[number])

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sparse data have no {name!r}, which wants all values dense in memory; pass a part of them, such as "
            "split.take(slice(1000)) or split.sample(1000, seed=0)"
        )

    @classmethod
    def of(cls, matrix: Any) -> "SparseRows":
        """From a scipy sparse matrix or array of any format, or a torch sparse tensor; entries are copied where needed.

        Raises:
            ValueError: not two dimensions, no numbers, or no columns.
        """
        from scipy import sparse

        if isinstance(matrix, Tensor):
            matrix = _of_torch(matrix)
        if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "buif":
            raise ValueError(
                f"sparse data of shape (datum, column) and of numbers wanted, got {matrix.shape} of {matrix.dtype}"
            )
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
            for part in (rows.indptr.astype(np.int64), column, _native(rows.data))
        )
        return cls(start, column, entry, matrix.shape[1])


def _native(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers in a type that torch computes with."""
    if values.dtype in (np.bool_, np.uint8):
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind in "ui":
        return values.astype(np.int64, copy=False)
    return values.astype(np.float64 if values.dtype.itemsize > 8 else values.dtype.newbyteorder("="), copy=False)


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


@dataclass(frozen=True, eq=False)
class SparseSplit(Split):
    """Data of one split as sparse rows; a `Split` whose batches are made dense as they are asked for.

    ``fit``, ``evaluate``, ``elpd_of`` and whatever asks for data by `epoch` or by `batch` get the bits that the dense
    split gives, in memory of the entries and of a batch. What needs all values at once takes some first (`take`,
    `sample`), which are dense. Everything is observed: an element that is not stored is a zero, and a NaN is refused.

    Attributes:
        values: the rows, or what `SparseRows.of` takes.
        labels: as for `Split`; likewise ``ids``, ``top``, ``draw``, ``space`` and ``y``.
    """

    values: SparseRows  # type: ignore[assignment]

    def __post_init__(self) -> None:
        given: Any = self.values
        if not isinstance(given, SparseRows):
            object.__setattr__(self, "values", SparseRows.of(given))
        if self.mask is not None:
            raise ValueError("sparse data have no mask: what is not stored is zero; pass a dense array with the mask")
        if self.draw == "dequantize":
            raise ValueError("dequantize=True makes every zero a number, and sparse data dense; pass a dense array")
        super().__post_init__()

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"SparseSplit({self.values!r}, {self.space})"

    @property
    def resident(self) -> bool:
        """They are not, as dense values."""
        return False

    def dense(self) -> Split:
        """All of the data as a dense split, in memory."""
        return self.take(slice(None))

    def take(self, index: Tensor | slice) -> Split:
        """Some of the data, dense."""
        parts = {name: getattr(self, name) for name in ("labels", "ids", "y")}
        some = {name: value[index] for name, value in parts.items() if value is not None}
        return Split(self.values[index], **some, top=self.top, draw=self.draw, space=self.space)

    def between(self, start: int, stop: int) -> "SparseSplit":
        """Consecutive data, which stay sparse."""
        parts = {name: getattr(self, name) for name in ("labels", "ids", "y")}
        some = {name: value[start:stop] for name, value in parts.items() if value is not None}
        return replace(self, values=self.values.between(start, stop), **some)

    def fixed(self, seed: int) -> "SparseSplit":
        """See `Split.fixed`: the same bits. Only the entries are looked at, but every element has its number."""
        if self.draw == "none":
            return self
        random = np.random.default_rng(seed)
        rows, columns, values = self.values, self.values.columns, []
        ends = rows.start.cpu()
        for some in row_blocks(len(self), columns):
            noise = torch.from_numpy(random.random((some.stop - some.start, columns), dtype=np.float32)).flatten()
            first, last = int(ends[some.start]), int(ends[some.stop])
            row = torch.repeat_interleave(ends[some.start : some.stop + 1].diff()) * columns
            entry = rows.entry[first:last].cpu().to(torch.float32)
            values.append(self._observe(entry, noise[row + rows.column[first:last].cpu()]).to(torch.uint8))
        drawn = torch.cat(values).to(self.device)
        kept = torch.cat([drawn.new_zeros(1, dtype=torch.int64), drawn.cumsum(0, dtype=torch.int64)])[rows.start]
        ones = SparseRows(kept, rows.column[drawn.bool()], drawn[drawn.bool()], columns)
        return replace(self, values=ones, top=None, draw="none")

    def summary(self) -> DataSummary:
        """See `Split.summary`; of the entries, and of the zeros that are not stored.

        Raises:
            ValueError: a value is not finite; the message counts them and names the first.
        """
        rows, top = self.values, self.top
        if not rows.numel():
            raise ValueError(f"none of {len(self)} data has a value that is observed; a summary wants one")
        zero = rows.nnz < rows.numel()
        low, high = [0.0] if zero else [], [0.0] if zero else []
        integral, two_levels, bad, first = True, top is not None, 0, ""
        for number, block in enumerate(rows.blocks()):
            low.append(float(block.min()))
            high.append(float(block.max()))
            if not (isfinite(low[-1]) and isfinite(high[-1])):  # a NaN is the least and the most
                wrong = (~block.isfinite()).nonzero().squeeze(1)
                at = number * _ENTRIES + int(wrong[0])
                bad, first = bad + len(wrong), first or f"{rows.entry[at].item()} at {rows.place(at)}"
            integral = integral and (not rows.dtype.is_floating_point or bool((block == block.round()).all()))
            two_levels = two_levels and bool(torch.eq(block, top or 0.0).all())
        if bad:
            raise ValueError(f"{bad} values are not finite, the first {first}; impute them, or pass a dense array")
        return self._summary(min(low), max(high), integral, two_levels)

    def feed(self, digest: "hashlib._Hash") -> None:
        """See `Split.feed`: the entries and their places, and the classes that are given."""
        digest.update(f"|sparse {tuple(self.values.shape)}".encode())
        parts = (self.values.start, self.values.column, self.values.entry, *(() if self.y is None else (self.y,)))
        for part in parts:
            digest.update(b"|")
            for begin in range(0, len(part), _ENTRIES):
                digest.update(part[begin : begin + _ENTRIES].cpu().numpy().view(np.uint8))


def is_sparse_file(path: Path) -> bool:
    """Whether a file is a ``.npz`` that `scipy.sparse.save_npz` wrote."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return "format" in arrays and "shape" in arrays and "data" in arrays
    except (OSError, ValueError, BadZipFile):  # which reading it as an array tells better
        return False


def read_sparse(path: Path) -> tuple[Any, np.ndarray[Any, Any] | None]:
    """The matrix of a file that `scipy.sparse.save_npz` wrote, and the array ``y`` where one was added; no pickle.

    Returns:
        A ``scipy.sparse.csr_array``, and labels ``(datum,)`` as they are stored, or ``None``.

    Raises:
        ValueError: no such contents, or no numbers.
    """
    from scipy import sparse

    try:
        matrix = sparse.csr_array(sparse.load_npz(path))
        with np.load(path, allow_pickle=False) as arrays:
            labels = arrays.get("y")
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(f"cannot read the sparse matrix {str(path)!r}: {error}") from None
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind not in "buif":
        raise ValueError(f"{str(path)!r} holds a sparse {matrix.dtype} of shape {matrix.shape}; wanted are numbers")
    if labels is not None and labels.shape != (matrix.shape[0],):
        raise ValueError(f"{str(path)!r}: y has shape {labels.shape}, the matrix has {matrix.shape[0]} rows")
    return matrix, labels
