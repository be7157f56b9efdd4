"""Batches: the random order of an epoch, the share of each process, and random words for random observations."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# So many numbers of data in memory are converted at once, which then need no second copy. On a CPU, torch gives so few
# to one thread, which waits for no other; a GPU takes more.
_CPU_BLOCK, _GPU_BLOCK = (1 << 15) - 1, 1 << 24


@dataclass(frozen=True)
class Part:
    """The share of every batch that one of several processes takes: disjoint shares, which together are the batch.

    Attributes:
        rank: which one, counted from 0.
        of: how many there are.
    """

    rank: int = 0
    of: int = 1

    def bounds(self, size: int) -> tuple[int, int]:
        """Where the share of a batch of ``size`` data begins and ends; shares differ by one datum at most."""
        return size * self.rank // self.of, size * (self.rank + 1) // self.of

    def take(self, index: Tensor) -> Tensor:
        """The share of a batch given by its rows."""
        begin, end = self.bounds(len(index))
        return index[begin:end]


WHOLE = Part()


class BitStream:
    """Random 32-bit words as int32 tensors.

    On a CPU from NumPy's SFC64, which is fast and the same on every machine; on another device from torch's generator
    there.

    Args:
        seed: of the stream.
        device: of the words.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self._words: np.random.SFC64 | torch.Generator
        if self._device.type == "cpu":
            self._words = np.random.SFC64(seed)
        else:
            self._words = torch.Generator(self._device).manual_seed(seed)

    def __call__(self, count: int) -> Tensor:
        """The next ``count`` words."""
        if isinstance(self._words, torch.Generator):
            shape, kind = (count,), torch.int32
            return torch.randint(-(2**31), 2**31, shape, dtype=kind, device=self._device, generator=self._words)
        return torch.from_numpy(self._words.random_raw((count + 1) // 2).view(np.int32))[:count]


def batches(
    size: int, batch_size: int, seed: int, device: torch.device, *, drop_last: bool = False
) -> Iterator[Tensor]:
    """Rows of each batch of one epoch, in a random order that the seed alone decides."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).to(device)
    for start in range(0, size - batch_size + 1 if drop_last else size, batch_size):
        yield order[start : start + batch_size]


def row_blocks(count: int, width: int, device: str = "cpu") -> Iterator[slice]:
    """Consecutive rows, all ``count`` of them in small blocks; a row has ``width`` numbers."""
    size = max((_CPU_BLOCK if device == "cpu" else _GPU_BLOCK) // max(width, 1), 1)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
