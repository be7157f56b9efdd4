"""Distances to the nearest row of a reference, a block of the reference at a time."""

from collections.abc import Iterable
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# Rows of the reference that are compared at once.
_BLOCK = 4096


def nearest(query: Array, reference: Array) -> tuple[Array, Array]:
    """Euclidean distance to the nearest row of a reference, and which it is, a block of the reference at a time.

    Args:
        query: shape ``(query, element)``.
        reference: shape ``(reference, element)``, at least one row.

    Returns:
        Two arrays of shape ``(query,)``: distances, float64 and exactly 0 for equal rows, and indices.
    """
    blocks = ((start, reference[start : start + _BLOCK]) for start in range(0, len(reference), _BLOCK))
    return nearest_in_blocks(query, blocks)


def nearest_in_blocks(query: Array, blocks: Iterable[tuple[int, Array]]) -> tuple[Array, Array]:
    """`nearest`, where the reference comes as blocks of rows, each with the index of its first row."""
    from sklearn.metrics import pairwise_distances_argmin

    best, index = np.full(len(query), np.inf), np.zeros(len(query), dtype=np.int64)
    for start, block in blocks:
        found = pairwise_distances_argmin(query, block)
        # Squares that are expanded lose the digits that distinguish a copy from a near copy; differences keep them.
        distance = np.sqrt(((query.astype(np.float64) - block[found]) ** 2).sum(1))
        nearer = distance < best
        best[nearer], index[nearer] = distance[nearer], start + found[nearer]
    return best, index
