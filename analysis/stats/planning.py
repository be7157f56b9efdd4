"""What would make two variants distinguishable: more seeds, or more data, and how many."""

from collections.abc import Callable
from math import sqrt

from analysis.stats.crossed import CrossedMean

LEVEL = 0.05
# A plan finds a difference in 4 of 5 experiments; it does not go beyond so many seeds, or so many times the data.
_MISSED = 0.2
_MOST_SEEDS, _MOST_TIMES = 1000, 1000


def what_would_help(mean: CrossedMean, *, num_comparisons: int = 1, level: float = LEVEL) -> str:
    """Which source of error dominates a difference, and how many seeds or data would tell it apart from 0, in words.

    The numbers take the present components of variance for true. They are those at which the half-width of the interval
    at Bonferroni's level, plus the t quantile of a miss in 5, is as long as the difference: it is then found in about 4
    of 5 experiments. A difference below its own standard error is no ground for a plan; what could be found is said
    instead.

    Args:
        mean: the difference.
        num_comparisons: that it is one of.
        level: of the test.
    """
    if mean.se == 0:
        return "the two predict exactly alike on these data"
    tail = level / num_comparisons / 2
    found = _needed(mean, mean.num_seeds, mean.num_data, tail)
    detectable = (
        f"with {counted(mean.num_seeds, 'seed')} and {mean.num_data:,} data, differences above {found:.2g} nats"
    )
    if not mean.of_objectives:
        more = _least(
            lambda n: _needed(mean, 1, n, tail), abs(mean.estimate), mean.num_data, _MOST_TIMES * mean.num_data
        )
        data = (
            "" if abs(mean.estimate) < mean.se or more is None else f"; about {more:,} data would tell these two fits"
        )
        return (
            "one seed shows no spread over seeds, so that nobody can say how many are needed: fit at least 3 of each"
            f"{data}"
        )
    parts = {"seeds": mean.se_seeds**2, "test data": mean.se_data**2}
    share = {name: part / mean.se**2 for name, part in parts.items()}
    share["single data in single seeds, and draws"] = max(1 - sum(share.values()), 0.0)
    most = max(share, key=lambda name: share[name])
    shown = ", ".join(f"{name} {part:.0%}" for name, part in share.items())
    source = f"most of the error's variance comes from {most} ({shown})"
    if abs(mean.estimate) < mean.se:
        return (
            f"{source}; the difference is smaller than its own error, too uncertain to plan with: {detectable} would "
            "be found in 4 of 5 such experiments"
        )
    size = abs(mean.estimate)
    enough = (
        (
            "seeds",
            mean.num_seeds,
            _least(lambda s: _needed(mean, s, mean.num_data, tail), size, mean.num_seeds, _MOST_SEEDS),
        ),
        (
            "data",
            mean.num_data,
            _least(lambda n: _needed(mean, mean.num_seeds, n, tail), size, mean.num_data, _MOST_TIMES * mean.num_data),
        ),
    )
    ways = [f"about {number:,} {what} (now {now:,})" for what, now, number in enough if number is not None]
    vain = [f"more {what} alone would not do" for what, _, number in enough if number is None]
    plan = ", ".join(filter(None, [" or ".join(ways), " and ".join(vain)]))
    return f"{source}; to find a difference of this size in 4 of 5 experiments, at the present spread: {plan}"


def _needed(mean: CrossedMean, num_seeds: int, num_data: int, tail: float) -> float:
    """Size of a difference that is found in 4 of 5 experiments of this many seeds and data, nats."""
    from scipy.stats import t

    by_data = mean.se_data**2 * mean.num_data / num_data
    by_seeds = left = 0.0
    if mean.of_objectives:
        by_seeds = mean.se_seeds**2 * mean.num_seeds / num_seeds
        left = mean.se_interaction**2 * mean.num_seeds * mean.num_data / (num_seeds * num_data)
    size = 0.0
    for side in (tail, _MISSED):
        of_data = float(t.isf(side, num_data - 1)) ** 2
        of_seeds = float(t.isf(side, num_seeds - 1)) ** 2 if mean.of_objectives else 0.0
        size += sqrt(of_seeds * by_seeds + of_data * by_data + max(of_seeds, of_data) * left)
    return size


def _least(needed: Callable[[int], float], size: float, low: int, high: int) -> int | None:
    """The least number from ``low`` on at which a difference of this size is found; ``None`` above ``high``."""
    if needed(high) > size:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if needed(middle) > size else (low, middle)
    return low


def counted(number: int, what: str) -> str:
    """``3 seeds``, ``1 seed``."""
    return f"{number:,} {what}{'s' * (number != 1)}"
