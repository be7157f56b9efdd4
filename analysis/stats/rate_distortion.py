"""Geometry of the rate-distortion plane: the bound for Gaussian data, the lower convex hull, ratios of means."""

from collections.abc import Sequence
from math import log, nan, pi
from typing import Any

import numpy as np

from vae_pyro.core.means import mean_and_error

type Array = np.ndarray[Any, Any]


def gaussian_rate(spectrum: Array, scale: float, distortion: float) -> tuple[float, float]:
    """Least rate of any code of Gaussian data with this distortion under a Gaussian likelihood, and its slope.

    ``D = d/2 log(2 pi scale^2) + E |x - x'|^2 / (2 scale^2)`` turns the distortion into a squared error, whose least
    rate is that of reverse water-filling: ``R = 1/2 sum_i log(l_i / t)`` over the eigenvalues l_i above the water level
    t, where ``sum_i min(t, l_i)`` is the squared error.

    Args:
        spectrum: eigenvalues of the covariance of the data, ``(dimension,)``.
        scale: standard deviation of the likelihood.
        distortion: in nats.

    Returns:
        The rate in nats, and dR/dD = -scale^2 / t. Infinity and NaN at a distortion that no code attains; 0 and 0 at
        one that the mean of the data attains.

    References:
        Cover & Thomas 2006, Elements of information theory, 2nd edition, theorem 10.3.3.
    """
    values = np.sort(np.asarray(spectrum, dtype=np.float64))
    d = len(values)
    squared = (distortion - d / 2 * log(2 * pi * scale**2)) * 2 * scale**2
    if squared <= 0:
        return float("inf"), nan
    if squared >= values.sum():
        return 0.0, 0.0
    # With the k smallest eigenvalues under water, the others have t each; the right k is the one whose t lies there.
    under = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    water = (squared - under) / np.arange(d, 0, -1)
    t = float(water[np.flatnonzero(water <= values)[0]])
    return float(0.5 * np.log(values[values > t] / t).sum()), -(scale**2) / t


def gaussian_entropy(spectrum: Array) -> float:
    """Differential entropy of Gaussian data in nats, from the eigenvalues of their covariance."""
    return float(0.5 * np.log(2 * np.pi * np.e * np.asarray(spectrum, dtype=np.float64)).sum())


def lower_convex_hull(distortion: Array, rate: Array) -> tuple[int, ...]:
    """Indices of the points on the lower convex hull, from the smallest distortion to the smallest rate.

    No point and no mixture of two (one for some data, the other for the rest) has a lower rate at their distortion.

    Args:
        distortion: ``(point,)``.
        rate: ``(point,)``.

    References:
        Andrew 1979, Another efficient algorithm for convex hulls in two dimensions, Information Processing Letters 9.
    """

    def above(first: int, middle: int, last: int) -> bool:
        (d0, d1, d2), (r0, r1, r2) = distortion[[first, middle, last]], rate[[first, middle, last]]
        return bool((r1 - r0) * (d2 - d0) >= (r2 - r0) * (d1 - d0))

    kept: list[int] = []
    for i in sorted(range(len(rate)), key=lambda i: (distortion[i], rate[i])):
        if kept and rate[i] >= rate[kept[-1]]:
            continue  # no lower rate than a point with less distortion
        while len(kept) > 1 and above(kept[-2], kept[-1], i):
            kept.pop()
        kept.append(i)
    return tuple(kept)


def ratio_of_means(numerator: Array, denominator: Array) -> tuple[float, float]:
    """Ratio of two paired means and its standard error by the delta method.

    Args:
        numerator: ``(datum,)``.
        denominator: ``(datum,)``.

    Returns:
        NaN for both where the denominator's mean lies within 3 standard errors of zero.
    """
    mean, error = mean_and_error(denominator)
    if not abs(mean) > 3 * error:
        return nan, nan
    ratio = float(numerator.mean()) / mean
    return ratio, mean_and_error(numerator - ratio * denominator)[1] / abs(mean)


def positive_spectrum(values: Sequence[float] | Array) -> Array:
    """Eigenvalues as float64, ``(dimension,)``.

    Raises:
        ValueError: another shape, or a value that is not positive and finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not (array > 0).all() or not np.isfinite(array).all():
        raise ValueError(f"spectrum must be a vector of positive eigenvalues, got {array}")
    return array
