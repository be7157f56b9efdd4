"""Rows of two splits as they are compared: as they are stored, or as they are observed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import Split

type Array = np.ndarray[Any, Any]

# Rows that are read, hashed or compared at once.
_BLOCK = 4096
_TINY = 1e-12


@dataclass(frozen=True)
class Rows:
    """Data in the form in which they are compared.

    Attributes:
        split: the data.
        stored: they are compared as they are stored; else as they are observed.
    """

    split: Split
    stored: bool

    def __len__(self) -> int:
        return len(self.split)

    def observed(self, rows: Array) -> Array | None:
        """Where elements are observed, ``(row, element)``; ``None`` if everywhere."""
        if self.split.mask is None:
            return None
        mask: Array = self.split.mask[_index(self.split, rows)].cpu().numpy().reshape(len(rows), -1)
        return mask

    def numbers(self, rows: Array, fill: Array | float) -> Array:
        """Floating-point numbers, ``(row, element)``, with ``fill`` where nothing is observed."""
        values = self.split.stored(_index(self.split, rows))
        if not values.dtype.is_floating_point:
            values = values.to(torch.float32)
        if self.split.top is not None:
            values = values / self.split.top
        array: Array = values.cpu().numpy().reshape(len(rows), -1)
        observed = self.observed(rows)
        return array if observed is None else np.where(observed, array, fill)

    def hashes(self) -> list[bytes]:
        """A digest of each row, of the stored bytes or of the numbers, and of what is hidden."""
        digests: list[bytes] = []
        for _, rows in parts(np.arange(len(self))):
            values = self.split.stored(_index(self.split, rows)).cpu().numpy().reshape(len(rows), -1)
            if not self.stored:
                values = self.numbers(rows, 0.0).astype(np.float32)
            if values.dtype.kind == "f":
                values = values + 0.0  # the two zeros are equal and differ in their bytes
            observed = self.observed(rows)
            if observed is not None:
                values = np.where(observed, values, np.zeros((), values.dtype))
                values = np.concatenate([values.view(np.uint8), np.packbits(observed, axis=1)], axis=1)
            digests += [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in values]
        return digests

    def moments(self, rows: Array) -> tuple[Array, Array]:
        """Mean of the observed numbers of each element, and what to divide it by: 1 but for the columns of a table."""
        count, total, square = np.zeros((3, prod(self.split.x_shape)))
        for _, part in parts(rows):
            observed = self.observed(part)
            count += len(part) if observed is None else observed.sum(0)
            total += self.numbers(part, 0.0).sum(0, dtype=np.float64)
        mean = total / np.maximum(count, 1)
        if len(self.split.x_shape) > 1:
            return mean, np.ones_like(mean)
        for _, part in parts(rows):
            square += ((self.numbers(part, mean) - mean) ** 2).sum(0, dtype=np.float64)
        scale = np.sqrt(square / np.maximum(count, 1))
        return mean, np.where(scale > _TINY * np.maximum(np.abs(mean), 1), scale, 1.0)


def comparable_rows(train: Split, test: Split, seed: int) -> tuple[Rows, Rows]:
    """Training and test data in a form in which their rows can be compared."""
    if (train.draw == "none") != (test.draw == "none"):
        train, test = (split.fixed(derive_seed(seed, stream)) for stream, split in enumerate((train, test)))
    if (train.mask is None) != (test.mask is None):
        train, test = (
            split.replace(mask=torch.ones((len(split), *split.x_shape), dtype=torch.bool, device=split.device))
            if split.mask is None
            else split
            for split in (train, test)
        )
    stored = train.dtype == test.dtype and train.top == test.top and train.draw == test.draw
    return Rows(train, stored), Rows(test, stored)


def parts(rows: Array) -> Iterator[tuple[int, Array]]:
    """Blocks of rows, each with the place of its first one."""
    return ((start, rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))


def _index(split: Split, rows: Array) -> Tensor:
    return torch.from_numpy(rows).to(split.device)
