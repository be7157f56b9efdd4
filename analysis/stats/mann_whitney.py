"""The Mann-Whitney statistic with its standard error."""

from math import sqrt
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

_TINY = 1e-12


def mann_whitney(first: Array, second: Array) -> tuple[float, float, float]:
    """P(first > second), ties counted half, its standard error, and z of equal distributions.

    Args:
        first: shape ``(m,)``.
        second: shape ``(n,)``.

    Returns:
        The probability; its error (variance of the placements, DeLong et al. 1988, sec. 2); and z with the variance
        under equality, corrected for ties, 0 where all values are equal.

    References:
        Mann & Whitney 1947, On a test of whether one of two random variables is stochastically larger than the other,
        Annals of Mathematical Statistics 18. doi:10.1214/aoms/1177730491
        DeLong, DeLong & Clarke-Pearson 1988, Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 44. doi:10.2307/2531595
    """
    from scipy.stats import rankdata

    m, n = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))
    # How much of the other sample lies below each value.
    placement = (ranks[:m] - rankdata(first)) / n
    other = 1 - (ranks[m:] - rankdata(second)) / m
    probability = float(placement.mean())
    error = sqrt((placement.var(ddof=1) if m > 1 else 0.25) / m + (other.var(ddof=1) if n > 1 else 0.25) / n)
    _, ties = np.unique(ranks, return_counts=True)
    total = m + n
    variance = (total + 1 - (ties.astype(float) ** 3 - ties).sum() / (total * (total - 1))) / (12 * m * n)
    return probability, error, (probability - 0.5) / sqrt(variance) if variance > _TINY else 0.0
