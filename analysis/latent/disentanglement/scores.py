"""A disentanglement score with its error, and what all of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """One disentanglement score.

    Attributes:
        name: of the score.
        value: between 0 and 1, higher is more disentangled.
        se: standard error of ``value`` for another sample of data; of its draws for the FactorVAE score; of the
            partners for UDR; ``None`` where it was not asked for.
        parts: what the value is the mean of, for each factor (MIG, SAP), latent (modularity, NaN where it is left out)
            or model (UDR).
        matrix: what it was computed from: mutual information or SAP's scores ``(latent, factor)``, votes ``(latent,
            factor)``, or UDR between models ``(model, model)``.
    """

    name: str
    value: float
    se: float | None
    parts: Array
    matrix: Array

    def __str__(self) -> str:
        error = "" if self.se is None else f" ± {self.se:.3f}"
        return f"{self.name} {self.value:.3f}{error}"


def checked_factors(codes: Any, factors: Any) -> tuple[Array, Array]:
    """Codes ``(datum, latent)`` as float64, and factors ``(datum, factor)`` as levels 0, 1, 2, ...

    Raises:
        ValueError: wrong shapes, codes that are not finite, levels that are not integers, or a constant factor.
    """
    codes, factors = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or 0 in codes.shape + factors.shape:
        raise ValueError(
            f"codes (datum, latent) and factors (datum, factor) of the same data required, got {codes.shape} and "
            f"{factors.shape}"
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"{int((~np.isfinite(codes)).sum())} codes are not finite; look for data the encoder fails on")
    if factors.dtype.kind not in "buif" or (factors != np.floor(factors)).any():
        raise ValueError(f"factors are levels 0, 1, 2, ..., got {factors.dtype}; number the distinct values")
    levels = np.stack([np.unique(column, return_inverse=True)[1] for column in factors.T], 1)
    constant = np.flatnonzero(levels.max(0) == 0)
    if len(constant):
        raise ValueError(f"factor {int(constant[0])} has one value in all {len(levels)} data; leave it out")
    return codes, levels


def half_samples_error(
    statistic: Callable[[Array], float], size: int, num_resamples: int, seed: int, stream: int
) -> float | None:
    """Standard error of a statistic of rows, from random halves of the data.

    The variance of a half's statistic given the data is that of the whole's over data. A bootstrap sample would hold
    data twice, which looks like information.

    References:
        Politis, Romano & Wolf 1999, Subsampling, sec. 2.3. doi:10.1007/978-1-4612-1554-7
    """
    if num_resamples < 2:
        return None
    random = np.random.default_rng(derive_seed(seed, stream))
    values = [statistic(random.permutation(size)[: size // 2]) for _ in range(num_resamples)]
    return float(np.nanstd(values, ddof=1)) if np.isfinite(values).sum() > 1 else None


def gap_of_top_two(scores: Array) -> Array:
    """Largest less second largest over latents, ``(factor,)``; a single latent competes with none."""
    if len(scores) == 1:
        return scores[0]
    ordered = np.sort(scores, axis=0)
    return ordered[-1] - ordered[-2]
