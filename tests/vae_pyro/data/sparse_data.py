"""Sparse data, and their dense twins."""

from typing import Any

import numpy as np
import torch

KINDS = [np.float32, np.float64, np.int64, np.int16, np.uint8, np.uint16, np.bool_]


INDEXES: list[Any] = [
    slice(None), slice(3, 9), slice(-4, None, 2), slice(5, 5), torch.tensor([4, 0, 4, 20]), torch.tensor([-1, 2]),
    torch.arange(23) % 3 == 0, torch.empty(0, dtype=torch.int64),
]  # fmt: skip


def counts(size: int = 23, columns: int = 7, seed: int = 0, rate: float = 0.4) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    x = random.poisson(rate, (size, columns)).astype(np.float32)
    x[min(2, size - 1)] = 0  # a row without entries
    x[min(4, size - 1)] = 3  # one without zeros
    return x


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
