"""Importance weights of each datum, reduced: log p(x) with its error and bounds, effective sample size.

The tail index of the weights is in `analysis.stats.pareto_smoothing`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from analysis.stats.pareto_smoothing import FEWEST_FITTED, good_k, pareto_k, smooth_rows
from vae_pyro.densities.moments import WeightSums

type Array = np.ndarray[Any, Any]

# Draws times data whose weights are reduced at once.
_AT_ONCE = 1_000_000

# Share of the draws that are effective from which on weights are nearly equal, and draws that suffice without a tail.
NEARLY_EQUAL, _ENOUGH_DRAWS = 0.9, 100.0


class Estimates(NamedTuple):
    """Reductions of the log weights of each datum, each ``(datum,)``, float64, nats.

    Attributes:
        log_px: log of the mean weight.
        log_px_mcse: its Monte Carlo standard error.
        rise: gain of log_px over the mean of the same estimate from either half of the draws; never negative.
        smoothed: log of the mean of the Pareto smoothed weights.
        elbo: mean log weight.
        upper: CUBO, half the log of the mean squared weight.
        pareto_k: tail shape, as `analysis.stats.pareto_smoothing.pareto_k`.
    """

    log_px: Array
    log_px_mcse: Array
    rise: Array
    smoothed: Array
    elbo: Array
    upper: Array
    pareto_k: Array


def estimates(log_weight: Array) -> Estimates:
    """Estimates of log p(x) from importance weights, in memory that does not grow with the number of data.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``; at least 25 particles.

    Raises:
        ValueError: fewer than 25 particles, or a weight is NaN or +inf (the message gives its datum).

    References:
        Dieng et al. 2017, Variational inference via chi upper bound minimization, CUBO at n = 2. arXiv:1611.00328
    """
    weight = np.asarray(log_weight)
    shape = pareto_k(weight)
    count = max(_AT_ONCE // len(weight), 1)
    starts = range(0, weight.shape[1], count)
    return join([_estimate(weight[:, i : i + count], shape[i : i + count]) for i in starts])


def join(parts: Sequence[Estimates]) -> Estimates:
    """Estimates of several blocks of data as one."""
    return Estimates(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _estimate(log_weight: Array, shape: Array) -> Estimates:
    rows = np.array(log_weight.T, dtype=np.float64, order="C")
    elbo = rows.mean(1)
    log_px, error, upper = _moments(rows)
    half = rows.shape[1] // 2
    halves = 0.5 * (_moments(rows[:, :half])[0] + _moments(rows[:, half:])[0])
    with np.errstate(invalid="ignore"):  # -inf - -inf, where every weight of a datum is zero
        rise = np.maximum(log_px - halves, 0.0)
    smooth_rows(rows)
    return Estimates(log_px, error, rise, _moments(rows)[0], elbo, upper, shape)


def _moments(rows: Array) -> tuple[Array, Array, Array]:
    """log mean w, its error, and 1/2 log mean w^2, of weights of shape ``(datum, particle)``."""
    sums = WeightSums.of(torch.from_numpy(rows.T))
    estimate, error = sums.log_evidence()
    return estimate.numpy(), error.numpy(), sums.upper_bound().numpy()


def log_evidence(log_weight: Array) -> tuple[Array, Array]:
    """Importance-sampling estimate of log p(x) and its Monte Carlo standard error.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``.

    Returns:
        Two arrays of shape ``(datum,)``, float64, see `vae_pyro.densities.moments.WeightSums.log_evidence`.
    """
    sums = WeightSums.of(torch.from_numpy(np.array(log_weight, dtype=np.float64)))
    estimate, error = sums.log_evidence()
    return estimate.numpy(), error.numpy()


def effective_sample_size(log_weight: Array) -> Array:
    """``(sum w)^2 / sum w^2`` of each datum, between 1 and the number of draws.

    Args:
        log_weight: nats, up to a constant of each datum, shape ``(particle, datum)``.

    Returns:
        ``(datum,)``, float64, see `vae_pyro.densities.moments.WeightSums.effective_sample_size`.
    """
    sums = WeightSums.of(torch.from_numpy(np.array(log_weight, dtype=np.float64)))
    return np.asarray(sums.effective_sample_size().numpy())


def unreliable(pareto_k: Array, effective_sample_size: Array, num_draws: int) -> Array:
    """Data whose weights are too uneven for their mean to be estimated; boolean, ``(datum,)``.

    By k-hat, except where a tail says nothing: with ties, as of discrete latents, none can be fitted, and the shape of
    nearly equal weights does not matter. There by the effective sample size, which is to be 100 draws (half of them,
    where there are fewer than 200): the standard error of log p(x) is then at most 0.1.

    Args:
        pareto_k: see `analysis.stats.pareto_smoothing.pareto_k`.
        effective_sample_size: see `effective_sample_size`.
        num_draws: K.
    """
    tied = np.isnan(pareto_k) & (num_draws >= FEWEST_FITTED)
    even = (effective_sample_size > NEARLY_EQUAL * num_draws) & ~np.isposinf(pareto_k)
    few = ~(effective_sample_size >= min(_ENOUGH_DRAWS, num_draws / 2))
    return np.asarray(np.where(tied | even, few, ~(pareto_k <= good_k(num_draws))))


def effective_draws(log_px_mcse: Array, num_draws: int) -> Array:
    """`effective_sample_size` from the Monte Carlo standard error of log p(x), whose square is ``1 / ESS - 1 / K``."""
    return np.asarray(num_draws / (1 + num_draws * log_px_mcse**2))
