"""Power analysis of a difference over seeds and data: the detectable effect, and the required numbers of both."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from analysis.stats.crossed import CrossedMean

ALPHA = 0.05
# A difference of the planned size is missed in one experiment of five: a power of 0.8.
_MISSED = 0.2
# No plan goes beyond this many seeds, or this many times the present number of data.
_MAX_SEEDS, _MAX_FACTOR = 1000, 1000


@dataclass(frozen=True)
class PowerAnalysis:
    """Sizes of an experiment that detects a difference of the present estimate with probability 0.8.

    Attributes:
        detectable: least difference that the present seeds and data detect with that probability, nats.
        num_seeds: seeds required with the present data; ``None`` above 1,000, or where one seed shows no spread.
        num_data: data required with the present seeds; ``None`` above 1,000 times as many.
        variance_shares: share of the variance of the estimate by source: ``seeds``, ``data`` and ``interaction`` (which
            holds the Monte Carlo error); empty with one seed, where they cannot be separated.
    """

    detectable: float
    num_seeds: int | None
    num_data: int | None
    variance_shares: dict[str, float]


def power_analysis(mean: CrossedMean, *, num_comparisons: int = 1, alpha: float = ALPHA) -> PowerAnalysis:
    """The seeds or data that a difference of this size requires, at the present components of variance.

    The half-width of the interval at Bonferroni's level, plus the t quantile of a miss in 5 experiments, is then as
    long as the difference, which approximates the power of the test. The estimate and its components are taken as
    exact: where the estimate is smaller than its standard error, the required sizes are not meaningful.

    Args:
        mean: the difference, with a positive standard error.
        num_comparisons: number of comparisons that the test is corrected for.
        alpha: error rate of the test.
    """
    tail, size = alpha / num_comparisons / 2, abs(mean.estimate)
    num_seeds, shares = None, {}
    if mean.of_objectives:
        num_seeds = _least(lambda s: _detectable(mean, s, mean.num_data, tail), size, mean.num_seeds, _MAX_SEEDS)
        shares = {name: part**2 / mean.se**2 for name, part in (("seeds", mean.se_seeds), ("data", mean.se_data))}
        shares["interaction"] = max(1 - sum(shares.values()), 0.0)
    most = _MAX_FACTOR * mean.num_data
    return PowerAnalysis(
        detectable=_detectable(mean, mean.num_seeds, mean.num_data, tail),
        num_seeds=num_seeds,
        num_data=_least(lambda n: _detectable(mean, mean.num_seeds, n, tail), size, mean.num_data, most),
        variance_shares=shares,
    )


def _detectable(mean: CrossedMean, num_seeds: int, num_data: int, tail: float) -> float:
    """Difference that this many seeds and data detect with probability 0.8, nats."""
    from scipy.stats import t

    by_data = mean.se_data**2 * mean.num_data / num_data
    by_seeds = interaction = 0.0
    if mean.of_objectives:
        by_seeds = mean.se_seeds**2 * mean.num_seeds / num_seeds
        interaction = mean.se_interaction**2 * mean.num_seeds * mean.num_data / (num_seeds * num_data)
    size = 0.0
    for side in (tail, _MISSED):
        of_data = float(t.isf(side, num_data - 1)) ** 2
        of_seeds = float(t.isf(side, num_seeds - 1)) ** 2 if mean.of_objectives else 0.0
        size += sqrt(of_seeds * by_seeds + of_data * by_data + max(of_seeds, of_data) * interaction)
    return size


def _least(detectable: Callable[[int], float], size: float, low: int, high: int) -> int | None:
    """The least number from ``low`` on at which a difference of this size is detected; ``None`` above ``high``."""
    if detectable(high) > size:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if detectable(middle) > size else (low, middle)
    return low
