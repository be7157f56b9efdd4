"""Scores and ranks of what came among draws of what was predicted."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def crps(draws: Array, x: Array) -> Array:
    """Continuous ranked probability score from draws, without the bias of few of them; in the units of x.

    Args:
        draws: ``(draw, element)``, at least 2.
        x: what came, ``(element,)``.

    Returns:
        ``E|X - x| - E|X - X'| / 2`` with both expectations estimated without bias, ``(element,)``.

    References:
        Gneiting & Raftery 2007, JASA 102, eq. 21. doi:10.1198/016214506000001437
    """
    m = len(draws)
    ordered = np.sort(draws, 0)
    weight = 2 * np.arange(1, m + 1) - m - 1  # the sum over pairs of |X_i - X_j|, from order statistics
    pairs = np.tensordot(weight, ordered, 1)
    return np.asarray(np.abs(draws - x).mean(0) - pairs / (m * (m - 1)))


def pit_of_draws(draws: Array, x: Array, *, seed: int) -> Array:
    """Probability integral transform of x among draws: uniform on (0, 1) where x is one more draw.

    Args:
        draws: ``(draw, element)``.
        x: ``(element,)``.
        seed: places x among equals and within its step, at random.

    Returns:
        ``(element,)``.
    """
    random = np.random.default_rng(seed)
    below, equal = (draws < x).sum(0), (draws == x).sum(0)
    place = below + np.floor(random.random(x.shape) * (equal + 1))
    return np.asarray((place + random.random(x.shape)) / (len(draws) + 1))
