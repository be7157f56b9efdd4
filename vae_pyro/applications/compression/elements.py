"""Elements of p(x | z) as integer weights over an alphabet, for any discrete likelihood of independent elements."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import MixtureSameFamily, constraints

from vae_pyro.applications.compression.ans import Stack
from vae_pyro.applications.compression.grid import rounded

type Array = np.ndarray[Any, Any]

# Largest alphabet of counts; larger counts are coded with their own bits.
_MAX_COUNTS = 4096


@dataclass(frozen=True)
class Alphabet:
    """Symbols of an element: the integers from ``low`` on, optionally with an escape for all larger ones.

    Attributes:
        low: value of symbol 0.
        size: number of symbols.
        escape: whether the last symbol is an escape, after which a larger value is coded as an integer.
    """

    low: int
    size: int
    escape: bool = False

    @property
    def values(self) -> int:
        """Number of symbols that are values."""
        return self.size - self.escape

    def weights(self, distribution: TorchDistribution) -> Array:
        """Integer weights in float64, ``(rows, size)``, with a row for each of the elements ``(*batch,)``.

        Without an escape the distribution is restricted to these values: where it has more (counts above the largest of
        the data), a value costs less than under the full distribution.

        Raises:
            ValueError: a probability is not finite.
        """
        values = torch.arange(self.low, self.low + self.values, dtype=torch.float64)
        log_prob = distribution.log_prob(values.reshape(-1, *(1,) * len(distribution.batch_shape)))
        mass = np.ascontiguousarray(log_prob.exp().reshape(self.values, -1).numpy().T)
        if not np.isfinite(mass).all():
            raise ValueError("p(x | z) has probabilities that are not finite: the fit diverged; fit the VAE again")
        if self.escape:
            mass = np.concatenate([mass, np.maximum(1 - mass.sum(1, keepdims=True), 0)], axis=1)
        return rounded(mass)

    def push(self, stack: Stack, x: Array, weights: Array) -> None:
        """Push values ``(rows,)``."""
        symbols = np.minimum(x - self.low, self.size - 1)
        if self.escape:
            for value in x[symbols == self.size - 1][::-1]:
                stack.push_integer(int(value) - self.low - self.values)
        stack.push(symbols, weights)

    def pop(self, stack: Stack, weights: Array) -> Array:
        """Pop values, int64, ``(rows,)``."""
        x = stack.pop(weights)
        if self.escape:
            for row in np.flatnonzero(x == self.size - 1):
                x[row] = self.values + stack.pop_integer()
        return x + self.low


def alphabet_of(distribution: TorchDistribution, highest: int) -> Alphabet:
    """The alphabet of elements whose largest value in the data is ``highest``.

    Counts are unbounded: their alphabet ends with the largest of the data, or with an escape, so that every count has a
    code.

    Raises:
        ValueError: the values are not integers.
    """
    support = distribution.support
    if isinstance(distribution, MixtureSameFamily):
        # Its own support hides the bounds of its components, which are of one kind for noise on levels.
        support = distribution.component_distribution.support
    if support is constraints.boolean:
        return Alphabet(0, 2)
    if not support.is_discrete or not hasattr(support, "lower_bound"):
        raise ValueError(
            f"lossless coding requires integers, and a {type(distribution).__name__} has values in {support}; choose a "
            "discrete likelihood, 'discretized_logistic' for bytes"
        )
    low = int(torch.as_tensor(support.lower_bound).min())
    if hasattr(support, "upper_bound"):
        return Alphabet(low, int(torch.as_tensor(support.upper_bound).max()) - low + 1)
    size = max(highest - low + 1, 2)
    return Alphabet(low, size) if size <= _MAX_COUNTS else Alphabet(low, _MAX_COUNTS + 1, escape=True)
