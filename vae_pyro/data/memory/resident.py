"""Splits whose values are in memory as one dense tensor."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, prod

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.minibatches import row_blocks
from vae_pyro.data.memory.held import HeldSplit
from vae_pyro.data.split import Index, feed_tensor
from vae_pyro.data.summary import DataSummary


@dataclass(frozen=True, eq=False, repr=False)
class ResidentSplit(HeldSplit):
    """Data of one split in memory, dense.

    Attributes:
        values: as stored, ``(datum, *x_shape)``; bytes stay bytes.
    """

    values: Tensor

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.shape != self.values.shape:
            raise ValueError(f"mask has shape {tuple(self.mask.shape)}, the data {tuple(self.values.shape)}")
        super().__post_init__()

    @property
    def resident(self) -> bool:
        """They are."""
        return True

    def take(self, index: Index) -> "ResidentSplit":
        rows = index if isinstance(index, slice) else index.to(self.device)
        return self.replace(values=self.values[rows], **self.beside(index))

    def fixed(self, seed: int) -> "ResidentSplit":
        if self.draw == "none":
            return self
        random = np.random.default_rng(seed)
        kind = torch.uint8 if self.draw == "binarize" else torch.float32
        values = torch.empty(self.values.shape, dtype=kind, device=self.device)
        for rows in self._blocks():
            x = self.values[rows].to(torch.float32)
            # Block after block these are the numbers that one call would give.
            noise = torch.from_numpy(random.random(tuple(x.shape), dtype=np.float32))
            values[rows] = self.observed(x, noise.to(self.device))
        return self.replace(values=values, top=None, draw="none")

    def _blocks(self) -> Iterator[slice]:
        return row_blocks(len(self), prod(self.x_shape), self.device.type)

    def summary(self) -> DataSummary:
        low, high, bad, first = [], [], 0, ""
        floating, top = self.dtype.is_floating_point, self.top
        integral, two_levels = True, top is not None
        for rows in self._blocks():
            values = self.values[rows] if self.mask is None else self.values[rows][self.mask[rows]]
            if values.numel() == 0:
                continue
            low.append(float(values.min()))
            high.append(float(values.max()))
            if not (isfinite(low[-1]) and isfinite(high[-1])):  # a NaN is the least and the most
                count, place = self._not_finite(rows)
                bad, first = bad + count, first or place
            integral = integral and (not floating or bool((values == values.round()).all()))
            two_levels = two_levels and bool(((values == 0) | (values == top)).all())
        if bad:
            raise ValueError(
                f"{bad} values are not finite, the first {first}; pass a mask that is false there, or impute them"
            )
        if not low:
            raise ValueError(f"none of {len(self)} data has a value that is observed; a summary requires one")
        return self._summary(min(low), max(high), integral, two_levels)

    def _not_finite(self, rows: slice) -> tuple[int, str]:
        """How many observed values of some rows are not finite, and the first of them with its place in the source."""
        values = self.values[rows]
        bad = ~values.isfinite()
        if self.mask is not None:
            bad &= self.mask[rows]
        row, *place = (int(i) for i in bad.nonzero()[0])
        source = int(self.ids[rows.start + row])
        return int(bad.sum()), f"{values[(row, *place)].item()} at {(source, *place)}"

    def feed(self, digest: "hashlib._Hash") -> None:
        for tensor in (self.values, self.mask, *(() if self.y is None else (self.y,))):
            digest.update(b"|")
            if tensor is not None:
                feed_tensor(digest, tensor, self._blocks())
