"""A grid of latents with equal mass under the prior, and integer weights of a Gaussian on it.

Encoder and decoder share the grid, and a point of it costs exactly its number of bits under the prior.

References:
    Townsend, Bird & Barber 2019, Practical lossless compression with latent variables using bits back coding, on
    buckets of equal mass under the prior. arXiv:1901.04866
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

type Array = np.ndarray[Any, Any]

# Probabilities are rounded to multiples of 2^-20 before coding. Coarser rounding costs bits; finer rounding makes it
# more likely that another processor rounds to another multiple.
WEIGHT = 1 << 20
_LEAST_SCALE = 1e-12


@dataclass(frozen=True)
class Grid:
    """``2^bits`` buckets of each latent, of equal mass under N(0, 1), in ``2^(bits/2)`` cells of ``2^(bits/2)`` each.

    A Gaussian is coded in two steps, the cell and the bucket within it, so that a latent takes ``2 * 2^(bits/2)``
    evaluations of its distribution function and not ``2^bits``.

    Attributes:
        bits: bits of each latent, an even number from 4 to 20.
    """

    bits: int = 16

    def __post_init__(self) -> None:
        if self.bits % 2 or not 4 <= self.bits <= 20:
            raise ValueError(f"bits must be an even number from 4 to 20, got {self.bits}")

    @property
    def size(self) -> int:
        """Buckets of each latent."""
        return 1 << self.bits

    @property
    def cells(self) -> int:
        """Cells of each latent, and buckets in each cell."""
        return 1 << self.bits // 2

    @cached_property
    def edges(self) -> Array:
        """Edges of the buckets, ``(size + 1,)``, from minus to plus infinity."""
        return np.asarray(ndtri(np.arange(self.size + 1) / self.size))

    @cached_property
    def centres(self) -> Array:
        """The point that represents each bucket, ``(size,)``: half of the bucket's mass lies below it."""
        return np.asarray(ndtri((np.arange(self.size) + 0.5) / self.size))

    def cell_weights(self, loc: Array, scale: Array) -> Array:
        """Integer weights of the cells under N(loc, scale^2).

        Args:
            loc: ``(n,)``.
            scale: ``(n,)``, positive.

        Returns:
            Integers in float64, ``(n, cells)``.
        """
        return _weights(self.edges[:: self.cells], loc, scale)

    def bucket_weights(self, loc: Array, scale: Array, cell: Array) -> Array:
        """Integer weights of the buckets within a cell under N(loc, scale^2); arguments ``(n,)``, ``(n, cells)``."""
        edges = self.edges[cell[:, None] * self.cells + np.arange(self.cells + 1)]
        return _weights(edges, loc, scale)

    def split(self, index: Array) -> tuple[Array, Array]:
        """Cell, and bucket within the cell, of a bucket index."""
        return index // self.cells, index % self.cells

    def join(self, cell: Array, bucket: Array) -> Array:
        """Bucket index, from 0 to ``size - 1``."""
        return cell * self.cells + bucket


def _weights(edges: Array, loc: Array, scale: Array) -> Array:
    if not (np.isfinite(loc).all() and np.isfinite(scale).all()):
        raise ValueError("q(z | x) has a mean or scale that is not finite: the fit diverged; fit the VAE again")
    t = (edges - loc[:, None]) / np.maximum(scale, _LEAST_SCALE)[:, None]
    below, above = ndtr(t), ndtr(-t)
    # Differences from the side on which both terms are small lose no digits in the tails.
    mass = np.where(t[:, :-1] < 0, np.diff(below), -np.diff(above))
    return rounded(mass)


def rounded(mass: Array) -> Array:
    """Masses ``(n, symbol)`` as integer weights in float64 whose rows sum to about 2^20; a row of zeros is uniform."""
    total = mass.sum(1, keepdims=True)
    share = np.divide(mass, total, out=np.full_like(mass, 1 / mass.shape[1]), where=total > 0)
    return np.rint(share * WEIGHT)
