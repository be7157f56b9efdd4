"""Rows that an estimate takes of a large data set: all of them, the first, or a random sample of a stated size."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from torch.utils.flop_counter import FlopCounterMode

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import bind

type Limit = int | Literal["all"] | None

# Operations of an estimate that takes about two minutes, by type of device: that of the data is counted, not timed,
# so that the same call takes the same rows on every machine.
_OPERATIONS = {"cpu": 1e13, "cuda": 2e14}
# Operations for each number of the widest tensor beside the products of matrices.
_BESIDE_PRODUCTS = 200
# Draws of one datum on which the operations are counted, and the least sample.
_COUNTED, _LEAST = 64, 1000
_SAMPLE_STREAM = 15


@dataclass(frozen=True)
class Rows:
    """The rows that are taken.

    Attributes:
        split: these rows.
        total: number of all rows.
        random: whether they are a random sample; if not, they are the first, or all.
    """

    split: Split
    total: int
    random: bool

    def __str__(self) -> str:
        if len(self.split) == self.total:
            return f"all {self.total:,}"
        return f"{'a random sample of' if self.random else 'the first'} {len(self.split):,} of {self.total:,}"

    def added_error(self, sampling_se: float) -> float:
        """Standard error that the sample adds to an average over all rows.

        It is that of sampling without replacement, ``sampling_se sqrt(1 - n / N)``.

        References:
            Cochran 1977, Sampling Techniques, 3rd ed., eq. 2.20.
        """
        return sampling_se * sqrt(1 - len(self.split) / self.total)


def choose_rows(
    pair: PairLike, split: Split, *, num_draws: int, limit: Limit = None, seed: int = 0, beside: float = 0.0
) -> Rows:
    """The rows that an estimate takes.

    Args:
        pair: a `vae_pyro.VAE`, or any pair that `vae_pyro.evaluate` takes.
        split: all rows.
        num_draws: draws for each datum.
        limit: ``None`` takes all rows, or a random sample where these would take more than about two minutes; ``all``
            takes all, a number the first so many.
        seed: of the sample.
        beside: operations for each draw and datum, beside those of its densities.
    """
    if limit == "all" or (limit is None and len(split) <= _LEAST):
        return Rows(split, len(split), random=False)
    if limit is not None:
        return Rows(split.take(slice(limit)), len(split), random=False)
    one = bind(pair, split.take(slice(0, 1)), seed=seed, blank=True, check=False)
    with FlopCounterMode(display=False) as counter:
        for block in one.walk(_COUNTED, seed=seed):
            for _ in block.scores():
                pass
    operations = counter.get_total_flops() / _COUNTED + _BESIDE_PRODUCTS * one.width + beside
    budget = _OPERATIONS.get(one.device.type, _OPERATIONS["cpu"])
    return sampled(split, max(int(budget / (operations * num_draws)), _LEAST), seed)


def sampled(split: Split, count: int, seed: int) -> Rows:
    """A random sample of so many rows; all of them where there are no more."""
    if len(split) <= count:
        return Rows(split, len(split), random=False)
    return Rows(split.sample(count, derive_seed(seed, _SAMPLE_STREAM)), len(split), random=True)
