"""The random order of an epoch, and random words for data that are observed anew at every step."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class BitStream:
    """Random 32-bit words as int32 tensors.

    On a CPU from NumPy's SFC64, which is fast and the same on every machine; on another device from torch's generator
    there.

    Args:
        seed: of the stream.
        device: where the words are wanted.
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
