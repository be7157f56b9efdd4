"""Outliers: which data are unlike those that the model was fitted to?

A score measures how strange a datum is to the model; `analysis.stats.conformal` turns it into a p-value, by its rank
among scores of normal data that the fit did not see. The false-alarm rate is then the nominal one whatever the model,
the guide and the number of draws; these determine the power alone.

Log densities can rank anomalies as the most normal of all (Nalisnick et al. 2019, arXiv:1810.09136: simpler images are
likelier), which a one-sided threshold never sees; score ``typicality`` does, see `SCORES`.
"""

from collections.abc import Callable
from math import floor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.monitoring.outliers.result import Detection
from analysis.stats.conformal import conformal_p_values, conformal_rank
from analysis.stats.importance import log_evidence
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import Block, reduced, walk

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


class EvidenceReducer:
    """Collects `evidence` from the blocks of a walk, of its first draws.

    Args:
        num_draws: how many of the draws of each datum are used.
    """

    def __init__(self, num_draws: int) -> None:
        self._num_draws = num_draws
        self._parts: list[Evidence] = []

    def add(self, block: Block) -> None:
        """Add the data of a block."""
        densities = block.log_densities()
        log_weight = densities.log_joint - densities.log_guide
        weight, likelihood = (part[: self._num_draws].numpy() for part in (log_weight, densities.log_likelihood))
        self._parts.append(Evidence(log_evidence(weight)[0], weight.mean(0), likelihood.mean(0)))

    def result(self) -> Evidence:
        """What scores are made of, for each datum."""
        return Evidence(*(np.concatenate(values) for values in zip(*self._parts, strict=True)))


def evidence(pair: PairLike, x: Split | Tensor | Array, *, num_draws: int = 100, seed: int = 0) -> Evidence:
    """What scores are made of, for each datum, streamed.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum.
        seed: of the draws.
    """
    return reduced(EvidenceReducer(num_draws), walk(pair, x, num_draws=num_draws, seed=seed))


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
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        calibration: normal data, ``(datum, *x_shape)``, not those of the fit.
        new: data to be judged.
        alpha: nominal false-alarm rate, an upper bound.
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
                raise ValueError("typicality requires at least 2 calibration data, or reference data")
            reference, normal = normal.take(torch.from_numpy(first)), normal.take(torch.from_numpy(second))
        known = evidence(pair, reference, num_draws=num_draws, seed=derive_seed(seed, _REFERENCE_STREAM))
        mean = float(-known.log_px.mean())
    scored = [
        SCORES[score](evidence(pair, x, num_draws=num_draws, seed=derive_seed(seed, stream)), mean)
        for x, stream in ((normal, _CALIBRATION_STREAM), (judged, _NEW_STREAM))
    ]
    return conformal(scored[0], scored[1], alpha=alpha, anomalous=anomalous, score=score, ids=judged.ids.cpu().numpy())


def conformal(
    calibration: Array,
    scores: Array,
    *,
    alpha: float = 0.05,
    anomalous: Array | None = None,
    score: str = "score",
    ids: Array | None = None,
) -> Detection:
    """Detect anomalies by any score, of a VAE or not.

    Args:
        calibration: scores of normal data that the fit did not see, ``(calibration datum,)``.
        scores: scores of new data, ``(datum,)``; larger is stranger.
        alpha: nominal false-alarm rate, an upper bound.
        anomalous: which of the new data are known to be anomalies, boolean, ``(datum,)``.
        score: its name.
        ids: of the new data.

    Raises:
        ValueError: fewer than ``1 / alpha - 1`` calibration data, a NaN, or shapes that do not fit.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha}")
    p_values = conformal_p_values(calibration, scores)
    if conformal_rank(alpha, len(calibration)) < 1:
        least = next(n for n in range(floor(1 / alpha) - 2, floor(1 / alpha) + 2) if conformal_rank(alpha, n) >= 1)
        raise ValueError(
            f"alpha={alpha:g} requires at least {least:,} calibration data, got {len(calibration):,}: no p-value could "
            f"be below {1 / (len(calibration) + 1):.3g}; raise alpha or pass more"
        )
    known = None if anomalous is None else np.asarray(anomalous, dtype=bool)
    if known is not None and known.shape != p_values.shape:
        raise ValueError(f"anomalous has shape {known.shape}, the new data {p_values.shape}")
    return Detection(
        scores=np.asarray(scores, dtype=np.float64),
        calibration=np.asarray(calibration, dtype=np.float64),
        p_values=p_values,
        alpha=alpha,
        score=score,
        ids=np.arange(len(p_values)) if ids is None else np.asarray(ids),
        anomalous=known,
    )
