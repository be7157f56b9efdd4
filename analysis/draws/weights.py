"""Importance weights of a pair at its data, streamed: what estimates and scores are reductions of, never kept whole."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import walk

type Array = np.ndarray[Any, Any]


class Weighed(NamedTuple):
    """Draws of a block of data.

    Attributes:
        x: the block, ``(datum, *x_shape)``, NaN where it is not observed.
        log_likelihood: log p(x | z), nats, ``(particle, datum)``.
        log_weight: log p(x, z) - log q(z | x), likewise.
    """

    x: Array
    log_likelihood: Array
    log_weight: Array


def weigh[T](
    pair: PairLike, x: Split | Tensor | Array, reduce: Callable[[Weighed], T], *, num_draws: int, seed: int
) -> list[T]:
    """Reduce the log weights of one block of data after another, all draws of a block at once.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        reduce: what to keep of a block.
        num_draws: draws for each datum.
        seed: of the draws, which are those of `vae_pyro.evaluate`.

    Returns:
        What ``reduce`` made of each block, in order.

    Raises:
        ValueError: wrong shapes, or data outside the support of the likelihood.
    """
    kept = []
    for block in walk(pair, x, num_draws=num_draws, seed=seed):
        densities = block.log_densities()
        log_weight = densities.log_likelihood + densities.log_prior - densities.log_guide
        kept.append(reduce(Weighed(block.observed(), densities.log_likelihood.numpy(), log_weight.numpy())))
    return kept


class Fingerprint:
    """SHA-256 of observed values in single precision, whatever the blocks and the type of the model."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._any = False

    def update(self, x: Array) -> None:
        """Add the next data, NaN where they are not observed."""
        values = np.array(x, dtype="<f4", order="C")
        values[np.isnan(values)] = np.nan  # one NaN of the many
        self._digest.update(values.tobytes())
        self._any = True

    @property
    def value(self) -> str:
        """In hexadecimal; empty where nothing was added."""
        return self._digest.hexdigest() if self._any else ""
