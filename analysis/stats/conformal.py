"""Conformal p-values: any score of strangeness becomes a p-value, by its rank among scores of normal data.

The false-alarm rate is then at most the nominal one, whatever the score; the score determines the power alone. The
guarantee is an average over calibration sets: the rate of one set scatters around it, see `false_alarm_interval`.
"""

from math import ceil, floor, sqrt
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def conformal_p_values(calibration: Array, scores: Array) -> Array:
    """Share of calibration data at least as strange as each new datum, itself counted in.

    Where a new datum is exchangeable with the calibration data, ``P(p <= alpha) <= alpha`` for all alpha and any score.

    Args:
        calibration: scores of data that neither the fit nor the score saw, ``(calibration datum,)``.
        scores: scores of new data, ``(datum,)``; larger is stranger.

    Returns:
        ``(1 + #{calibration >= score}) / (n + 1)``, ``(datum,)``.

    Raises:
        ValueError: no calibration data, or a score that is NaN.

    References:
        Vovk, Gammerman & Shafer 2005, Algorithmic learning in a random world, sec. 2.2.
        Bates et al. 2023, Testing for outliers with conformal p-values, eq. 2. arXiv:2104.08279
    """
    known, new = (np.asarray(values, dtype=np.float64) for values in (calibration, scores))
    if known.ndim != 1 or new.ndim != 1 or len(known) == 0:
        raise ValueError(
            f"scores of shape (datum,) and calibration data are required, got {known.shape} and {new.shape}"
        )
    for name, values in (("calibration", known), ("new", new)):
        if np.isnan(values).any():
            raise ValueError(
                f"{int(np.isnan(values).sum())} {name} scores are NaN, the first is {int(np.isnan(values).argmax())}"
            )
    at_least = len(known) - np.searchsorted(np.sort(known), new, side="left")
    return (1 + at_least) / (len(known) + 1)


def conformal_rank(alpha: float, count: int) -> int:
    """Largest r with ``r / (count + 1) <= alpha`` in floating point, as p-values are compared."""
    rank = floor(alpha * (count + 1)) + 1
    while rank / (count + 1) > alpha:
        rank -= 1
    return rank


def conformal_threshold(calibration: Array, level: float) -> Array:
    """Threshold that the score of new data stays below, or at, with at least a probability; for each column.

    Where new data are exchangeable with the calibration data, the probability is from ``level`` to
    ``level + 1 / (n + 1)``, if no scores are tied.

    Args:
        calibration: scores, ``(calibration datum, *column)``; larger is stranger.
        level: coverage.

    Returns:
        The ``ceil((n + 1) level)``-th smallest score, ``(*column,)``.

    Raises:
        ValueError: too few calibration data for the level, or a score that is NaN.

    References:
        Vovk, Gammerman & Shafer 2005, Algorithmic learning in a random world, sec. 2.2.
    """
    scores = np.asarray(calibration, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} calibration scores are NaN")
    rank = ceil((len(scores) + 1) * level - 1e-9)
    if rank > len(scores):
        raise ValueError(
            f"level={level:g} takes at least {ceil(level / (1 - level) - 1e-9):,} calibration data, got {len(scores):,}"
        )
    return np.asarray(np.partition(scores, rank - 1, axis=0)[rank - 1])


def false_alarm_interval(rank: int, num_calibration: int) -> tuple[float, float]:
    """Central 95 % of the false-alarm rate over calibration sets, a Beta distribution.

    Args:
        rank: of the threshold, see `conformal_rank`.
        num_calibration: calibration data.

    References:
        Vovk 2012, Conditional validity of inductive conformal predictors, sec. 2. arXiv:1209.2673
    """
    from scipy.stats import beta

    low, high = beta.ppf([0.025, 0.975], rank, num_calibration + 1 - rank)
    return float(low), float(high)


def false_alarm_error(rank: int, num_calibration: int, num_normal: int) -> float:
    """Standard error of the share of false alarms among so many normal data, of these and of the calibration data.

    The share is beta-binomial: binomial given a rate that is itself a Beta variable.
    """
    n, rate = num_calibration, rank / (num_calibration + 1)
    return sqrt(rate * (1 - rate) * (n + 1 + num_normal) / (num_normal * (n + 2)))


def false_alarm_p_value(alarms: int, rank: int, num_calibration: int, num_normal: int) -> float:
    """Probability of at least so many alarms among normal data."""
    from scipy.stats import betabinom

    return float(betabinom.sf(alarms - 1, num_normal, rank, num_calibration + 1 - rank))
