"""p-values and ranks of observed values among replications: of one statistic, of several at once, of each datum."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def family_wise(observed: Array, replicated: Array) -> tuple[float, Array]:
    """Single-step maxT: p-values of several statistics that hold for all of them at once.

    Each statistic is measured by its distance from the mean of all data sets, the observed one included, in their
    standard deviations. Exact where the observed data set is exchangeable with the replications, whatever the
    dependence between statistics.

    Args:
        observed: shape ``(statistic,)``.
        replicated: shape ``(replication, statistic)``.

    Returns:
        p-value of the hypothesis that no statistic differs: the share of data sets whose largest distance is at least
        the observed one's; and the share of them whose largest distance is at least that of each statistic, shape
        ``(statistic,)``. The smallest value that can be had is ``1 / (replications + 1)``.

    References:
        Westfall & Young 1993, Resampling-based multiple testing, ch. 2.
        Dudoit, Shaffer & Boldrick 2003, Multiple hypothesis testing in microarray experiments, Statistical Science 18,
        sec. 2 (single-step maxT). doi:10.1214/ss/1056397487
    """
    values = np.concatenate([observed[None], replicated])
    centred, spread = values - values.mean(0), values.std(0)
    distance = np.abs(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0))
    largest = np.sort(distance.max(1))
    adjusted = 1 - np.searchsorted(largest, distance[0], side="left") / len(largest)
    return float(adjusted.min()), adjusted


def two_sided(values: Array) -> Array:
    """Twice the smaller tail of each row among all rows, itself included, column by column.

    Where rows are exchangeable, that of any one row is at most ``a`` with probability at most ``a``.

    Args:
        values: shape ``(row, column)``.

    Returns:
        Shape of ``values``.

    References:
        Davison & Hinkley 1997, Bootstrap methods and their application, sec. 4.2. doi:10.1017/CBO9780511802843
    """
    ordered = np.sort(values, axis=0)
    p = np.empty(values.shape)
    for column, rising in enumerate(ordered.T):
        at_most = np.searchsorted(rising, values[:, column], side="right")
        at_least = len(values) - np.searchsorted(rising, values[:, column], side="left")
        p[:, column] = np.minimum(2 * np.minimum(at_most, at_least) / len(values), 1.0)
    return p


def randomised_pit(observed: Array, replicated: Array, noise: Array, weight: Array | None = None) -> Array:
    """Rank of each observed value among its own replications, in [0, 1], spread over ties with random numbers.

    Args:
        observed: shape ``(datum,)``.
        replicated: shape ``(draw, datum)``.
        noise: independent uniform numbers, shape ``(datum,)``.
        weight: of each draw, columns summing to 1; without weights the observed value takes a rank of its own, which
            makes the result exactly uniform where it is exchangeable with its replications.

    Returns:
        Shape ``(datum,)``, float64.

    References:
        Czado, Gneiting & Held 2009, Predictive model assessment for count data, Biometrics 65, sec. 2.
        doi:10.1111/j.1541-0420.2009.01191.x
    """
    below, equal = replicated < observed, replicated == observed
    if weight is None:
        return (below.sum(0) + noise * (equal.sum(0) + 1)) / (len(replicated) + 1)
    return np.clip((weight * below).sum(0) + noise * (weight * equal).sum(0), 0, 1)
