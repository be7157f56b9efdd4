"""Splits whose data are mostly zeros, kept as compressed sparse rows."""

import hashlib
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch

from vae_pyro.core.minibatches import row_blocks
from vae_pyro.data.memory.held import HeldSplit
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.memory.sparse_rows import SparseRows, entry_blocks
from vae_pyro.data.split import Index, feed_tensor
from vae_pyro.data.summary import DataSummary


@dataclass(frozen=True, eq=False, repr=False)
class SparseSplit(HeldSplit):
    """Data of one split as sparse rows, made dense as they are asked for.

    ``fit``, ``evaluate``, ``elpd_of`` and whatever asks for data by `epoch` or by `batch` get the bits that the dense
    split gives, in memory of the entries and of a batch. What needs all values at once takes some first (`take`,
    `sample`), which are dense. Everything is observed: an element that is not stored is a zero, and a NaN is refused.

    Attributes:
        values: the rows, or what `SparseRows.of` takes.
        labels: as for `Split`; likewise ``ids``, ``top``, ``draw``, ``space`` and ``y``.
    """

    values: SparseRows

    def __post_init__(self) -> None:
        given: Any = self.values
        if not isinstance(given, SparseRows):
            object.__setattr__(self, "values", SparseRows.of(given))
        if self.mask is not None:
            raise ValueError("sparse data have no mask: what is not stored is zero; pass a dense array with the mask")
        if self.draw == "dequantize":
            raise ValueError("dequantize=True makes every zero a number, and sparse data dense; pass a dense array")
        super().__post_init__()

    def dense(self) -> ResidentSplit:
        """All of the data as a dense split, in memory."""
        return self.take(slice(None))

    def take(self, index: Index) -> ResidentSplit:
        return ResidentSplit(self.values[index], **self.beside(index), top=self.top, draw=self.draw, space=self.space)

    def between(self, start: int, stop: int) -> "SparseSplit":
        """See `Split.between`; they stay sparse."""
        return self.replace(values=self.values.between(start, stop), **self.beside(slice(start, stop)))

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
            values.append(self.observed(entry, noise[row + rows.column[first:last].cpu()]).to(torch.uint8))
        drawn = torch.cat(values).to(self.device)
        kept = torch.cat([drawn.new_zeros(1, dtype=torch.int64), drawn.cumsum(0, dtype=torch.int64)])[rows.start]
        ones = SparseRows(kept, rows.column[drawn.bool()], drawn[drawn.bool()], columns)
        return self.replace(values=ones, top=None, draw="none")

    def summary(self) -> DataSummary:
        """See `Split.summary`; of the entries, and of the zeros that are not stored.

        Raises:
            ValueError: a value is not finite; the message counts them and names the first.
        """
        rows, top = self.values, self.top
        if not rows.numel():
            raise ValueError(f"none of {len(self)} data has a value that is observed; a summary requires one")
        zero = rows.nnz < rows.numel()
        low, high = [0.0] if zero else [], [0.0] if zero else []
        integral, two_levels, bad, first = True, top is not None, 0, ""
        for some in entry_blocks(rows.nnz):
            block = rows.entry[some]
            low.append(float(block.min()))
            high.append(float(block.max()))
            if not (isfinite(low[-1]) and isfinite(high[-1])):  # a NaN is the least and the most
                wrong = (~block.isfinite()).nonzero().squeeze(1)
                at = some.start + int(wrong[0])
                row, column = rows.place(at)
                place = int(self.ids[row]), column  # in the source
                bad, first = bad + len(wrong), first or f"{rows.entry[at].item()} at {place}"
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
            feed_tensor(digest, part, entry_blocks(len(part)))

    def _where(self) -> str:
        share = self.values.nnz / max(self.values.numel(), 1)
        return f"sparse {super()._where()}, {self.values.nnz:,} entries ({share:.2g} of all)"
