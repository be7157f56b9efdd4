"""Which data are unlike those that the model was fitted to? Scores, thresholds that keep their promise, and power.

A score says how strange a datum is to the model; `analysis.stats.conformal` makes a p-value of it, by its rank among
scores of normal data that the fit did not see. False alarms are then as rare as promised whatever the model, the guide
and the number of draws; these decide the power alone.

Log densities can rank anomalies as the most normal of all (Nalisnick et al. 2019, arXiv:1810.09136: simpler images are
likelier), which a one-sided threshold never sees; score ``typicality`` does, see `SCORES`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.density.elpd import log_evidence
from analysis.draws.weights import Weighed, weigh
from analysis.stats.conformal import Detection, conformal
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike

type Array = np.ndarray[Any, Any]

_CALIBRATION_STREAM, _NEW_STREAM, _REFERENCE_STREAM, _HALF_STREAM = range(4)


class Evidence(NamedTuple):
    """What scores are made of, each ``(datum,)``, nats.

    Attributes:
        log_px: log p(x) by importance sampling.
        elbo: E_q[log p(x, z) - log q(z | x)].
        reconstruction: E_q[log p(x | z)].
    """

    log_px: Array
    elbo: Array
    reconstruction: Array


# Each takes the evidence and the mean of -log p(x) over reference data, and is larger for stranger data.
SCORES: dict[str, Callable[[Evidence, float], Array]] = {
    "log_px": lambda evidence, _: -evidence.log_px,
    "elbo": lambda evidence, _: -evidence.elbo,
    "reconstruction": lambda evidence, _: -evidence.reconstruction,
    # Nalisnick et al. 2019, arXiv:1906.02994, sec. 3.1, with single data for batches.
    "typicality": lambda evidence, mean: np.abs(-evidence.log_px - mean),
}


def evidence(pair: PairLike, x: Split | Tensor | Array, *, num_draws: int = 100, seed: int = 0) -> Evidence:
    """What scores are made of, for each datum, streamed.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum.
        seed: of the draws.
    """

    def reduce(block: Weighed) -> Evidence:
        return Evidence(log_evidence(block.log_weight)[0], block.log_weight.mean(0), block.log_likelihood.mean(0))

    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    parts = weigh(pair, x, reduce, num_draws=num_draws, seed=seed)
    return Evidence(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def detect(
    pair: PairLike,
    calibration: Split | Tensor | Array,
    new: Split | Tensor | Array,
    *,
    alpha: float = 0.05,
    score: str = "log_px",
    num_draws: int = 100,
    seed: int = 0,
    reference: Split | Tensor | Array | None = None,
    anomalous: Array | None = None,
) -> Detection:
    """Score new data by a fitted pair, against normal data that the fit did not see.

    Both are scored from the same number of draws, so that the estimates' bias and noise are in both.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        calibration: normal data, ``(datum, *x_shape)``, not those of the fit.
        new: data to be judged.
        alpha: rate of false alarms that is not to be exceeded.
        score: a name of `SCORES`.
        num_draws: draws for each datum.
        seed: of the draws.
        reference: where ``typicality`` takes the mean of -log p(x) from; ``None`` takes a random half of the
            calibration data, and calibrates on the other.
        anomalous: which of the new data are known to be anomalies, boolean, ``(datum,)``.

    Raises:
        ValueError: an unknown score, too few calibration data for ``alpha``, or data outside the likelihood's support.
    """
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}; choose from {', '.join(SCORES)}, or pass scores to conformal()")
    normal, judged = as_split(calibration), as_split(new)
    mean = 0.0
    if score == "typicality":
        if reference is None:
            # A mean over data that also calibrate would make these more typical than new data.
            order = np.random.default_rng(derive_seed(seed, _HALF_STREAM)).permutation(len(normal))
            first, second = (np.sort(part) for part in np.array_split(order, 2))
            if len(first) == 0 or len(second) == 0:
                raise ValueError("typicality wants at least 2 calibration data, or reference data")
            reference, normal = normal.take(torch.from_numpy(first)), normal.take(torch.from_numpy(second))
        known = evidence(pair, reference, num_draws=num_draws, seed=derive_seed(seed, _REFERENCE_STREAM))
        mean = float(-known.log_px.mean())
    scored = [
        SCORES[score](evidence(pair, x, num_draws=num_draws, seed=derive_seed(seed, stream)), mean)
        for x, stream in ((normal, _CALIBRATION_STREAM), (judged, _NEW_STREAM))
    ]
    return conformal(scored[0], scored[1], alpha=alpha, anomalous=anomalous, score=score, ids=judged.ids.cpu().numpy())
