"""Optimism of the best of many: how much too high the criterion is that a choice was made by."""

from dataclasses import dataclass
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

_BLOCK = 4_000_000


@dataclass(frozen=True)
class Optimism:
    """How much too high the value of the best of many is.

    Attributes:
        value: mean of the best candidate on the data that chose it.
        optimism: by how much it is too high for fresh data.
        optimism_se: error of ``optimism`` from the number of bootstrap samples.
        sampling_se: standard error of the best candidate's mean, as if it had been chosen beforehand. For ``value -
            optimism`` it is an approximation: too large where independent candidates are equal in truth, a little too
            small where they differ by about their errors.
        num_candidates: that were compared.
        num_data: that they were compared on.
        agreement: share of bootstrap samples that choose the same candidate.
    """

    value: float
    optimism: float
    optimism_se: float
    sampling_se: float
    num_candidates: int
    num_data: int
    agreement: float

    @property
    def corrected(self) -> float:
        """Estimate of the chosen candidate's mean on fresh data."""
        return self.value - self.optimism

    def __str__(self) -> str:
        return (
            f"best of {self.num_candidates}: {self.value:.4f} nats per datum on the {self.num_data:,} data that chose "
            f"it, too high by {self.optimism:.4f}; on fresh data {self.corrected:.4f} ± {self.sampling_se:.4f}"
        )


def selection_optimism(values: Array, *, num_bootstraps: int = 1000, seed: int = 0) -> Optimism:
    """How optimistic the mean of the best of several candidates is, for they were compared on the data it is a mean of.

    The choice is repeated on bootstrap samples of the data, and what it chooses is looked at on the data that the
    sample left out. The difference there from the candidate that all data choose is averaged: a candidate that wins
    every time has no optimism, candidates that are equal in truth have all of it. A sample holds 63 % of the data in
    expectation, so that a choice among candidates that differ is a little worse than the one that was made, and the
    correction errs on the side of caution.

    ``value - optimism`` has the expectation over bootstrap samples of the paper's estimate (BBC), the mean of what is
    chosen on the data left out, since every datum is left out equally often. Which data those are moves the values of
    all candidates together, and the difference takes that noise away. The paper resamples out-of-sample predictions
    of cross-validation, this function those of one validation set.

    Args:
        values: a criterion of every candidate on every datum, larger is better, ``(candidate, datum)``.
        num_bootstraps: samples.
        seed: of them.

    Raises:
        ValueError: other shapes, fewer than two data, values that are not finite, or too few samples.

    References:
        Tsamardinos, Greasidou & Borboudakis 2018, Bootstrapping the out-of-sample predictions for efficient and
        accurate cross-validation, Machine Learning 107. doi:10.1007/s10994-018-5714-4
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"values of shape (candidate, at least 2 data), all finite, required; got shape {values.shape}"
        )
    if num_bootstraps < 2:
        raise ValueError(f"num_bootstraps is at least 2, got {num_bootstraps}")
    candidates, n = values.shape
    means = values.mean(1)
    best = int(means.argmax())
    centred = (values - values[best]).T  # the chosen one is 0: differences lose no digits and its noise cancels
    generator = np.random.default_rng(seed)
    lost: list[Array] = []
    same = done = 0
    block = max(_BLOCK // n, 1)
    while done < num_bootstraps:
        counts = generator.multinomial(n, np.full(n, 1 / n), size=min(block, num_bootstraps - done)).astype(float)
        chosen = (counts @ centred).argmax(1)
        left = (counts == 0).astype(float)
        size = left.sum(1)
        some = size > 0
        outside = (left @ centred)[np.arange(len(counts)), chosen]
        lost.append(-outside[some] / size[some])
        same += int((chosen == best).sum())
        done += len(counts)
    each = np.concatenate(lost)
    if len(each) < 2:
        raise ValueError(f"num_bootstraps={num_bootstraps} samples of {n} data left fewer than two with data outside")
    return Optimism(
        value=float(means[best]),
        optimism=float(each.mean()),
        optimism_se=float(each.std(ddof=1) / np.sqrt(len(each))),
        sampling_se=float(values[best].std(ddof=1) / np.sqrt(n)),
        num_candidates=candidates,
        num_data=n,
        agreement=same / num_bootstraps,
    )
