"""Latents on a grid that the prior finds equally probable everywhere, and a Gaussian on that grid in integers.

Both ends of a channel know the grid before any datum, and a point of it costs exactly its number of bits under the
prior.

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

# Probabilities become multiples of 2^-20 before they are coded. Coarser costs bits; finer makes it likelier that the
# last digit of another processor lands on the other side of a rounding.
WEIGHT = 1 << 20
_LEAST_SCALE = 1e-12


@dataclass(frozen=True)
class Grid:
    """``2^bits`` buckets of each latent, of equal mass under N(0, 1), in ``2^(bits/2)`` cells of so many buckets.

    A Gaussian is coded in two steps, the cell and the bucket within it, so that a latent costs ``2 * 2^(bits/2)``
    values of its distribution function and not ``2^bits``.

    Attributes:
        bits: even, of each latent.
    """

    bits: int = 16

    def __post_init__(self) -> None:
        if self.bits % 2 or not 4 <= self.bits <= 20:
            raise ValueError(f"a grid has an even number of bits for each latent, from 4 to 20, got {self.bits}")

    @property
    def size(self) -> int:
        """Buckets of each latent."""
        return 1 << self.bits

    @property
    def cells(self) -> int:
        """Cells of each latent, and buckets in each of them."""
        return 1 << self.bits // 2

    @cached_property
    def edges(self) -> Array:
        """Where buckets begin and end, ``(size + 1,)``, from minus to plus infinity."""
        return np.asarray(ndtri(np.arange(self.size + 1) / self.size))

    @cached_property
    def centres(self) -> Array:
        """The point that stands for each bucket, ``(size,)``: half of the bucket's mass lies below it."""
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
        """Cell, and bucket within it, of a bucket's number."""
        return index // self.cells, index % self.cells

    def join(self, cell: Array, bucket: Array) -> Array:
        """The number of a bucket, from 0 to ``size - 1``."""
        return cell * self.cells + bucket


def _weights(edges: Array, loc: Array, scale: Array) -> Array:
    if not (np.isfinite(loc).all() and np.isfinite(scale).all()):
        raise ValueError("q(z | x) has a mean or scale that is not finite; the weights of the encoder are broken")
    t = (edges - loc[:, None]) / np.maximum(scale, _LEAST_SCALE)[:, None]
    below, above = ndtr(t), ndtr(-t)
    # From the side on which both terms are small, so that no digits are lost in a tail.
    mass = np.where(t[:, :-1] < 0, np.diff(below), -np.diff(above))
    return rounded(mass)


def rounded(mass: Array) -> Array:
    """Masses ``(n, symbol)`` as integer weights in float64 whose rows sum to about 2^20; a row of zeros is uniform."""
    total = mass.sum(1, keepdims=True)
    share = np.divide(mass, total, out=np.full_like(mass, 1 / mass.shape[1]), where=total > 0)
    return np.rint(share * WEIGHT)
