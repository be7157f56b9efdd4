"""Pareto smoothed importance sampling, for many data at once: the tail of each datum's weights, fitted and smoothed.

Data are independent problems of the same size, so each step is done for a block of them, and of the draws only the
tail is sorted: 10,000 data of 5,000 draws take seconds, and little memory beside the weights. The numbers are those of
arviz-stats' ``psislw``, datum by datum, where those are finite.
"""

from collections.abc import Iterator
from math import log10
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

type Array = np.ndarray[Any, Any]

# Fewest draws that are taken, and that have a tail which can be fitted.
MIN_DRAWS, FEWEST_FITTED = 25, 30
# Draws times data held at once in float64, a few times over.
_AT_ONCE = 1_000_000
# Zhang & Stephens 2009: the prior of b = k / sigma is spread on the scale of 3 first quartiles. Vehtari et al. 2024: k
# is drawn to 0.5 with the weight of 10 observations.
_PRIOR_B, _PRIOR_K_WEIGHT, _PRIOR_K = 3, 10, 0.5


class Smoothed(NamedTuple):
    """Weights of `pareto_smooth`.

    Attributes:
        log_weight: smoothed, their sum 1 for each datum, shape ``(particle, datum)``, float64.
        pareto_k: shape of the fitted tail, ``(datum,)``, see `pareto_smooth`.
    """

    log_weight: Array
    pareto_k: Array


def tail_size(num_draws: int) -> int:
    """Draws that the tail is fitted to: ``min(S / 5, 3 sqrt(S))``, rounded down.

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3. arXiv:1507.02646
    """
    return int(3 * num_draws**0.5) if num_draws > 225 else num_draws // 5


def good_k(num_draws: int) -> float:
    """k-hat below which so many draws give a useful estimate on average over data: ``min(1 - 1/log10 S, 0.7)``.

    Of a single datum it promises less: k-hat has an error of its own, and the standard error is that of a skewed mean.
    (For a posterior of 10 dimensions and k of 0.5, two standard errors cover 66 %.)

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3.2: the sample size needed grows as
        10^(1 / (1 - k)), and above 0.7 no size that is practical suffices. arXiv:1507.02646
    """
    return min(1 - 1 / log10(num_draws), 0.7)


def pareto_smooth(log_weight: Array) -> Smoothed:
    """Replace the largest weights of each datum by the expected order statistics of the tail fitted to them.

    No smoothed weight exceeds the largest raw one. Among equal weights it is not determined which gets which value.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``; at least 25 particles.

    Returns:
        Weights and k-hat. Weights stay as they are, but for the normalisation, where k-hat is minus infinity (all are
        equal up to rounding), NaN (no tail can be fitted: fewer than 30 draws, or ties in the tail) or plus infinity
        (the largest weight is some 700 nats above a part of the tail, more than can be computed with).

    Raises:
        ValueError: fewer than 25 particles, or a weight is NaN or +inf (the message gives its datum).

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3. arXiv:1507.02646
    """
    weight = _checked(log_weight)
    smoothed = np.empty(weight.shape)
    shape = np.empty(weight.shape[1])
    for block, rows in _rows(weight):
        shape[block] = smooth_rows(rows)
        total = logsumexp(rows, axis=1, keepdims=True)
        # A datum whose weights are all zero has nothing to normalise.
        smoothed[:, block] = (rows - np.where(np.isfinite(total), total, 0.0)).T
    return Smoothed(smoothed, shape)


def pareto_k(log_weight: Array) -> Array:
    """Shape of the generalised Pareto tail of the importance weights of each datum, as a verdict on its guide.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``; at least 25 particles.

    Returns:
        Shape ``(datum,)``, float64. Minus infinity where all weights are equal: the guide is the posterior there. Plus
        infinity where a weight is zero: the guide leaves the support, and no tail shows how much it misses; and where
        the largest is some 700 nats above a part of the tail. NaN where no tail can be fitted: fewer than 30 draws, or
        ties in the tail.

    Raises:
        ValueError: fewer than 25 particles, or a weight is NaN or +inf (the message gives its datum).

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3. arXiv:1507.02646
    """
    weight = _checked(log_weight)
    shape = np.empty(weight.shape[1])
    for block, rows in _rows(weight):
        # A weight of zero says that the guide draws where p(x, z) = 0: no tail of the others is evidence of a match.
        zero = np.isneginf(rows).any(1)
        shape[block] = np.where(zero, np.inf, _tails(rows).shape)
    return shape


def smooth_rows(rows: Array) -> Array:
    """Smooth the weights of some data in place, without normalising them; the shapes are returned.

    Args:
        rows: log weights without NaN and +inf, float64, shape ``(datum, particle)``: a datum's draws lie together.

    Returns:
        As `pareto_smooth`, ``(datum,)``.
    """
    tail = _tails(rows, smooth=True)
    if len(tail.fitted):
        rows[tail.fitted[:, None], tail.places] = tail.smoothed
    return tail.shape


class _Tails(NamedTuple):
    shape: Array  # (datum,)
    fitted: Array  # data that got a new tail
    places: Array  # where in those data the tail lies, ascending by weight, (fitted, tail)
    smoothed: Array  # log weights to put there


def _checked(log_weight: Array) -> Array:
    weight = np.asarray(log_weight)
    if weight.ndim != 2:
        raise ValueError(f"log weights of shape (particle, datum) required, got {weight.shape}")
    if len(weight) < MIN_DRAWS:
        raise ValueError(f"a tail needs at least {MIN_DRAWS} draws, got {len(weight)}; raise num_draws")
    largest = weight.max(0)  # NaN wherever one is
    bad = np.isnan(largest) | np.isposinf(largest)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} data have a log weight that is NaN or +inf, the first is {int(bad.argmax())}"
        )
    return weight


def _rows(weight: Array) -> Iterator[tuple[slice, Array]]:
    """Blocks of data, as float64 copies of shape ``(datum, particle)``."""
    size = max(_AT_ONCE // len(weight), 1)
    for start in range(0, weight.shape[1], size):
        block = slice(start, start + size)
        # A copy even where transposing alone would give this layout: it is written to.
        yield block, np.array(weight[:, block].T, dtype=np.float64, order="C")


def _tails(rows: Array, *, smooth: bool = False) -> _Tails:
    draws = rows.shape[1]
    size = tail_size(draws)
    largest, least = rows.max(1), rows.min(1)
    # Rounding leaves equal weights a few ulps apart, and a tail fitted to rounding would be reported as a tail.
    with np.errstate(invalid="ignore"):  # -inf - -inf, where every weight is zero
        spread = largest - least
    scale = np.maximum(1.0, np.maximum(np.abs(largest), np.where(np.isfinite(least), np.abs(least), 0.0)))
    equal = ~(spread > 1e-6 * scale)
    shape = np.where(equal & np.isfinite(largest), -np.inf, np.nan)

    varied = np.flatnonzero(~equal)
    chosen = rows[varied]
    if smooth:
        index = np.argpartition(chosen, draws - size - 1, axis=1)[:, draws - size - 1 :]
        upper = np.take_along_axis(chosen, index, 1)
        order = upper.argsort(1)
        index, upper = np.take_along_axis(index, order, 1)[:, 1:], np.take_along_axis(upper, order, 1)
    else:
        index = np.empty((len(varied), 0), dtype=np.intp)
        upper = np.sort(np.partition(chosen, draws - size - 1, axis=1)[:, draws - size - 1 :], axis=1)
    # The threshold is the largest weight below the tail; all are relative to the largest of all.
    weight = np.exp(upper - largest[varied, None])
    excess = weight[:, 1:] - weight[:, :1]
    # Where a quarter of the tail is tied at its lower end, it is no generalised Pareto tail; where that quarter is
    # nothing beside the largest weight, it is heavier than can be estimated.
    first = _quartile(size)
    sunk = (weight[:, first + 1] == 0) & np.isfinite(upper[:, first + 1])
    shape[varied[sunk]] = np.inf
    possible = np.flatnonzero(excess[:, first] > excess[:, 0])
    varied, index, excess, threshold = varied[possible], index[possible], excess[possible], weight[possible, :1]
    if not len(varied):
        return _Tails(shape, varied, index, np.empty((0, size)))
    k, sigma = _fit(excess)
    shape[varied] = np.where(np.isnan(k), np.inf, k)
    if not smooth:
        return _Tails(shape, varied, index, np.empty((len(varied), 0)))

    usable = np.isfinite(k) & (sigma > 0)
    varied, index, threshold, k, sigma = varied[usable], index[usable], threshold[usable], k[usable], sigma[usable]
    survival = np.log1p(-(np.arange(size) + 0.5) / size)
    slope = np.where(k == 0, 1.0, k)[:, None]
    with np.errstate(over="ignore"):  # what overflows is cut at the largest weight
        quantile = np.where(k[:, None] == 0, -survival, np.expm1(-slope * survival) / slope)
        smoothed = np.minimum(np.log(threshold + sigma[:, None] * quantile), 0.0)
    return _Tails(shape, varied, index, smoothed + largest[varied, None])


def _quartile(size: int) -> int:
    return int(size / 4 + 0.5) - 1


def _fit(excess: Array) -> tuple[Array, Array]:
    """Shape and scale of generalised Pareto tails above 0, by the empirical Bayes estimate.

    Args:
        excess: ascending, shape ``(datum, tail)``.

    References:
        Zhang & Stephens 2009, A new and efficient estimation method for the generalized Pareto distribution,
        Technometrics 51. doi:10.1198/tech.2009.08017
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25 (the prior of k). arXiv:1507.02646
    """
    size = excess.shape[1]
    count = 30 + int(size**0.5)
    grid = 1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # 1 / quartile overflows: NaN, which the caller reads as infinite
        b = grid / (_PRIOR_B * excess[:, _quartile(size), None]) + 1 / excess[:, -1:]
        profile = np.empty_like(b)
        for column in range(count):
            profile[:, column] = np.log1p(-b[:, column, None] * excess).mean(1)
        log_likelihood = size * (np.log(-b / profile) - profile - 1)
        posterior = np.exp(log_likelihood - logsumexp(log_likelihood, axis=1, keepdims=True))
        posterior[posterior < 10 * np.finfo(np.float64).eps] = 0.0
        mean = (posterior * b).sum(1) / posterior.sum(1)
        k = np.log1p(-mean[:, None] * excess).mean(1)
        return (size * k + _PRIOR_K_WEIGHT * _PRIOR_K) / (size + _PRIOR_K_WEIGHT), -k / mean
