"""Ranks of a truth among draws, and what follows: coverage of intervals and balls, z-scores. Functions of arrays."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def ranks(z: Array, draws: Array, random: np.random.Generator | int = 0) -> Array:
    """How many draws are below the truth; ties are broken at random, so that ranks of an exact posterior are uniform.

    Args:
        z: the truth, shape ``(simulation, *rest)``.
        draws: independent draws for each, shape ``(particle, simulation, *rest)``.
        random: generator or seed for the ties.

    Returns:
        Whole numbers ``0..particle``, shape ``(simulation, *rest)``.

    Raises:
        ValueError: shapes do not fit, or a value is NaN.

    References:
        Talts et al. 2018, theorem 1. arXiv:1804.06788
        Modrák et al. 2023 (ties). arXiv:2211.02383
    """
    z, draws = np.asarray(z), np.asarray(draws)
    if draws.shape[1:] != z.shape:
        raise ValueError(f"draws of shape (particle, {', '.join(map(str, z.shape))}) are required, got {draws.shape}")
    if np.isnan(z).any() or np.isnan(draws).any():
        raise ValueError(
            f"ranks of NaN: {int(np.isnan(z).sum())} true values and {int(np.isnan(draws).sum())} draws are NaN"
        )
    below, equal = (draws < z).sum(0), (draws == z).sum(0)
    placed: Array = below + np.random.default_rng(random).integers(0, equal + 1)
    return placed


def settled(values: Array, precision: Array) -> Array:
    """Values that are equal up to rounding made equal, so that `ranks` breaks their ties at random.

    Log weights of an exact guide are constant, and those of a discrete latent take few values; those of the truth and
    of the draws may be rounded otherwise. All values of a simulation are one where they span less than a thousand
    roundings, which is the same for every order of them; of others, draws within eight of the truth are set to it.

    Args:
        values: the truth, then the draws, shape ``(1 + particle, simulation)``.
        precision: size of a rounding of each simulation, ``(simulation,)``.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        span = values.max(0) - values.min(0)
        near = np.abs(values - values[0]) <= 8 * precision
    return np.asarray(np.where(near | (span <= 1000 * precision), values[0], values))


def coverage(ranks: Array, num_draws: int) -> tuple[Array, Array]:
    """How often central intervals of the draws hold the truth, at every level that their number allows.

    An interval that leaves out the j lowest and the j highest of ``num_draws + 1`` places has the level
    ``1 - 2 j / (num_draws + 1)``, exactly, for any number of draws.

    Args:
        ranks: of the truth among draws, in ``0..num_draws``, shape ``(simulation, *rest)``.
        num_draws: number of draws.

    Returns:
        Nominal levels, rising and below 1, shape ``(level,)``, and coverage, ``(level, *rest)``.

    Raises:
        ValueError: a rank outside ``0..num_draws``.
    """
    if np.min(ranks) < 0 or np.max(ranks) > num_draws:
        raise ValueError(f"ranks in 0..{num_draws} are required, got {np.min(ranks)}..{np.max(ranks)}")
    left_out = np.arange(num_draws // 2, 0, -1)
    depth = np.minimum(ranks, num_draws - np.asarray(ranks))
    share = np.stack([(depth >= j).mean(0) for j in left_out])
    return 1 - 2 * left_out / (num_draws + 1), share


def tarp(z: Array, draws: Array, points: Array, random: np.random.Generator | int = 0) -> Array:
    """Tests of accuracy with random points: how many draws are closer to a point than the truth is.

    The ball around the point that reaches the truth has, under the guide, the probability of the draws inside; its
    distribution function over simulations is the expected coverage, that of an exact posterior the diagonal. Points
    that do not depend on x leave a guide that is the prior undetected; quantities of x find it.

    Args:
        z: the truth, shape ``(simulation, latent)``, in units in which distances make sense.
        draws: shape ``(particle, simulation, latent)``.
        points: shape ``(simulation, latent)``, drawn without regard to the truth.
        random: generator or seed for ties.

    Returns:
        Whole numbers ``0..particle``, shape ``(simulation,)``.

    Raises:
        ValueError: shapes do not fit, or a value is NaN.

    References:
        Lemos et al. 2023. arXiv:2302.03026
    """
    return ranks(((z - points) ** 2).sum(-1), ((draws - points) ** 2).sum(-1), random)


def standardize(z: Array, draws: Array) -> tuple[Array, Array, Array, Array]:
    """z-scores of the truth, variance of the draws, and sums of powers of the z-score of each draw among the others."""
    n = len(draws)
    variance = draws.var(0, ddof=1)
    centred = draws - draws.mean(0)
    # Mean and variance of the draws without one of them.
    others = np.maximum(((n - 1) * variance - centred**2 * n / (n - 1)) / (n - 2), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (z - draws.mean(0)) / np.sqrt(variance)
        square = (centred * n / (n - 1)) ** 2 / others
    return score, variance, square.sum((0, 1)), (square**2).sum((0, 1))


def binomial_se(share: Any, num: int) -> Array:
    # Half a count either way where all or none are covered (Agresti & Coull 1998 add two; the order is the same).
    kept = np.clip(share, 0.5 / num, 1 - 0.5 / num)
    error: Array = np.sqrt(kept * (1 - kept) / num)
    return error
