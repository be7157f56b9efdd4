"""The path of the counts of independent uniform values: the probability that it stays within bounds."""

from functools import lru_cache
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# Poisson terms this many standard deviations from the mean are below 1e-30.
_REACH = 12
# Products of lengths up to which a convolution is direct.
_DIRECT = 300_000


def path_probability(lower: Array, upper: Array, num_values: int, grid: Array) -> float:
    """Probability that the counts of independent uniform values up to each point of a grid all stay in their bounds.

    Args:
        lower: smallest allowed count at each point, shape ``(point,)``.
        upper: largest allowed count, likewise.
        num_values: number of uniform values.
        grid: rising points in (0, 1).

    References:
        Moscovich & Nadler 2017. arXiv:1503.04363
    """
    steps = np.diff(np.concatenate([[0.0], grid, [1.0]]))
    low = np.concatenate([np.maximum(lower, 0), [num_values]]).astype(int)
    high = np.concatenate([np.minimum(upper, num_values), [num_values]]).astype(int)
    if (low > high).any():
        return 0.0
    state, start = np.ones(1), 0  # P(path inside so far and count = start, start + 1, ...)
    for step, bottom, top in zip(steps, low, high, strict=True):
        first, increment = _poisson(num_values * float(step))
        longer = _convolve(state, increment)
        offset = start + first
        kept = np.zeros(top - bottom + 1)
        a, b = max(bottom, offset), min(top, offset + len(longer) - 1)
        if a > b:
            return 0.0
        kept[a - bottom : b - bottom + 1] = longer[a - offset : b - offset + 1]
        state, start = kept, bottom
    first, ends = _poisson(float(num_values))
    return float(min(state[0] / ends[num_values - first], 1.0))


def _convolve(a: Array, b: Array) -> Array:
    if len(a) * len(b) < _DIRECT:
        return np.convolve(a, b)
    from scipy.signal import fftconvolve

    return np.maximum(fftconvolve(a, b), 0.0)


@lru_cache(maxsize=1024)
def _poisson(mean: float) -> tuple[int, Array]:
    """First count and probabilities from there on. Ratios of neighbours keep full precision at any mean."""
    reach = _REACH * (mean + 4) ** 0.5
    first, last = max(int(mean - reach), 0), int(mean + reach + 2 * _REACH)
    log_ratio = np.log(mean / np.arange(first + 1, last + 1))
    log_prob = np.concatenate([[0.0], np.cumsum(log_ratio)])
    prob = np.exp(log_prob - log_prob.max())
    return first, prob / prob.sum()
