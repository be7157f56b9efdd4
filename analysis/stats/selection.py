"""Selection bias of the best of many candidates: how optimistic the score is that the choice was made by."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_pyro.core.means import standard_error

type Array = np.ndarray[Any, Any]

_BLOCK = 4_000_000


@dataclass(frozen=True)
class Optimism:
    """Optimism of the score of the best of many candidates.

    Attributes:
        value: mean score of the best candidate on the data that selected it.
        optimism: estimated excess of ``value`` over the expectation on fresh data.
        optimism_se: standard error of ``optimism`` from the number of bootstrap samples.
        sampling_se: standard error of the mean of the best candidate, as if it had been chosen beforehand. For
            ``value - optimism`` it is an approximation: too large where independent candidates are equal in truth,
            slightly too small where they differ by about their errors.
        num_candidates: number of candidates.
        num_data: number of data that they were compared on.
        agreement: share of bootstrap samples that select the same candidate.
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
        """Estimated mean score of the selected candidate on fresh data."""
        return self.value - self.optimism

    def __str__(self) -> str:
        return (
            f"best of {self.num_candidates}: {self.value:.4f} nats per datum on the {self.num_data:,} data that "
            f"selected it, optimistic by {self.optimism:.4f}; corrected {self.corrected:.4f} ± {self.sampling_se:.4f}"
        )


def selection_optimism(values: Array, *, num_bootstrap: int = 1000, seed: int = 0) -> Optimism:
    """Optimism of the mean score of the best of several candidates on the data that they were compared on.

    The selection is repeated on bootstrap samples of the data, and each selected candidate is scored on the data that
    the sample left out. The mean shortfall there against the candidate that all data select is the optimism: zero for a
    candidate that wins every time, all of it for candidates that are equal in truth. A sample contains 63 % of the data
    in expectation, so that a selection among candidates that differ is slightly worse than the one that was made, and
    the correction is conservative.

    ``value - optimism`` has the expectation over bootstrap samples of the paper's estimate (BBC), the mean score of the
    selected candidate on the data left out, since every datum is left out equally often. Which data are left out moves
    the scores of all candidates together, and the difference removes that noise. The paper resamples out-of-sample
    predictions of cross-validation, this function those of one validation set.

    Args:
        values: score of every candidate on every datum, larger is better, ``(candidate, datum)``.
        num_bootstrap: number of bootstrap samples, at least 2.
        seed: seed of the samples.

    Raises:
        ValueError: another shape, fewer than two data, values that are not finite, or too few samples.

    References:
        Tsamardinos, Greasidou & Borboudakis 2018, Bootstrapping the out-of-sample predictions for efficient and
        accurate cross-validation, Machine Learning 107. doi:10.1007/s10994-018-5714-4
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"values must have shape (candidate, datum) with at least 2 data, all finite; got shape {values.shape}"
        )
    if num_bootstrap < 2:
        raise ValueError(f"num_bootstrap must be at least 2, got {num_bootstrap}")
    candidates, n = values.shape
    means = values.mean(1)
    best = int(means.argmax())
    centred = (values - values[best]).T  # relative to the best: no loss of digits, and its noise cancels
    generator = np.random.default_rng(seed)
    lost: list[Array] = []
    same = done = 0
    block = max(_BLOCK // n, 1)
    while done < num_bootstrap:
        counts = generator.multinomial(n, np.full(n, 1 / n), size=min(block, num_bootstrap - done)).astype(float)
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
        raise ValueError(f"num_bootstrap={num_bootstrap} gave fewer than two samples that leave data out; raise it")
    return Optimism(
        value=float(means[best]),
        optimism=float(each.mean()),
        optimism_se=standard_error(each),
        sampling_se=standard_error(values[best]),
        num_candidates=candidates,
        num_data=n,
        agreement=same / num_bootstrap,
    )
