"""Are values uniform? Their empirical distribution function, and a band around it that holds at all points at once.

For PIT values, ranks of simulation-based calibration, and credibility levels; the band's level is exact, not simulated.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import bdtr, bdtrc, bdtrik

from analysis.stats.uniform_paths import path_probability

type Array = np.ndarray[Any, Any]

_MAX_POINTS = 200
# One minus a probability is rounding below this.
_ROUNDING = 1e-10
# Tails that are equal by symmetry differ by rounding; they are one atom of the statistic.
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class EcdfBand:
    """Where the ECDF of ``num_values`` independent uniform values stays, at all points of a grid at once.

    Attributes:
        num_values: values that the band is for.
        level: asked simultaneous probability.
        attained: exact probability that the whole ECDF is inside, at least ``level``: counts are discrete.
        gamma: each point's band is that of a central interval of probability ``1 - gamma``.
        grid: points in (0, 1), shape ``(point,)``.
        lower: of the band, shape ``(point,)``, inclusive.
        upper: likewise.
        num_ranks: number of possible values where they are ranks ``0..num_ranks - 1``; ``None`` for values in [0, 1].
    """

    num_values: int
    level: float
    attained: float
    gamma: float
    grid: Array
    lower: Array
    upper: Array
    num_ranks: int | None = None

    def ecdf(self, values: Array) -> Array:
        """ECDF on the grid, shape ``(point, *rest)``, of values of shape ``(num_values, *rest)``.

        Raises:
            ValueError: another number of values, or values outside their range.
        """
        if len(values) != self.num_values:
            raise ValueError(f"the band is for {self.num_values:,} values, got {len(values):,}; make another one")
        return ecdf(_as_uniform(values, self.num_ranks), self.grid)

    def difference(self, values: Array) -> Array:
        """ECDF minus that of the uniform distribution, shape ``(point, *rest)``.

        Raises:
            ValueError: see `ecdf`.
        """
        curve = self.ecdf(values)
        return curve - self.grid.reshape(-1, *[1] * (curve.ndim - 1))

    def outside(self, values: Array) -> Any:
        """Whether the ECDF leaves the band anywhere, boolean of shape ``rest``, for values ``(num_values, *rest)``.

        Raises:
            ValueError: see `ecdf`.
        """
        curve = self.ecdf(values)
        shape = (-1, *[1] * (curve.ndim - 1))
        # Half a count: the bounds are whole counts, divided.
        slack = 0.5 / self.num_values
        left = (curve < self.lower.reshape(shape) - slack) | (curve > self.upper.reshape(shape) + slack)
        return left.any(0)


def ecdf(values: Array, grid: Array) -> Array:
    """Share of values at most each point of a grid.

    Args:
        values: shape ``(value, *rest)``.
        grid: shape ``(point,)``.

    Returns:
        Shape ``(point, *rest)``, float64.
    """
    flat = np.sort(np.asarray(values).reshape(len(values), -1), axis=0)
    counts = np.stack([np.searchsorted(column, grid, side="right") for column in flat.T], axis=1)
    share: Array = counts / len(flat)
    return share.reshape(len(grid), *np.shape(values)[1:])


def ecdf_band(
    num_values: int, *, level: float = 0.95, num_ranks: int | None = None, grid: Array | None = None
) -> EcdfBand:
    """Simultaneous confidence band of the ECDF of independent uniform values.

    At each point the count of values is binomial; the band is made of central intervals of one probability
    ``1 - gamma`` each, with the largest gamma that keeps the whole ECDF inside with probability ``level``. That
    probability is exact: the counts are those of a Poisson process given its end, whose path is followed from point to
    point. Bands are cached.

    Args:
        num_values: values in the sample.
        level: simultaneous probability.
        num_ranks: number of possible values where they are ranks ``0..num_ranks - 1``; ``None`` for values in [0, 1].
        grid: rising points in (0, 1), for ranks multiples of ``1 / num_ranks``. Default: equal steps, one for each
            value or rank, and at most 200.

    Raises:
        ValueError: fewer than 1 value or 2 ranks, a level or grid outside (0, 1), a grid between the ranks.

    References:
        Säilynoja, Bürkner & Vehtari 2022, Graphical test for discrete uniformity and its applications in
        goodness-of-fit evaluation and multiple sample comparison. arXiv:2103.10522
        Moscovich & Nadler 2017, Fast calculation of boundary crossing probabilities for Poisson processes.
        arXiv:1503.04363 (the recursion)

    >>> band = ecdf_band(500, num_ranks=100)
    >>> bool(band.outside(np.arange(500) % 100)), bool(band.outside(np.arange(500) % 80))
    (False, True)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    points = _points(num_values, num_ranks, grid)
    return _band(int(num_values), float(level), num_ranks, tuple(points.tolist()))


def uniformity_p_value(values: Array, *, num_ranks: int | None = None, grid: Array | None = None) -> Any:
    """p-value of the hypothesis that values are independent and uniform, by the test whose rejections are `EcdfBand`'s.

    It is at most ``1 - level`` exactly where `EcdfBand.outside` of that level is true. Exact down to 1e-10, and an
    upper bound below.

    Args:
        values: shape ``(value, *rest)``, in [0, 1] or ranks.
        num_ranks: see `ecdf_band`.
        grid: see `ecdf_band`.

    Returns:
        Shape ``rest``, float64.

    Raises:
        ValueError: see `ecdf_band`; values outside their range.
    """
    n = len(values)
    points = _points(n, num_ranks, grid)
    counts = np.rint(n * ecdf(_as_uniform(values, num_ranks), points)).astype(np.int64)
    flat = counts.reshape(len(points), -1)
    tails = np.minimum(bdtr(flat, n, points[:, None]), bdtrc(flat - 1, n, points[:, None]))
    smallest = np.minimum(2 * tails.min(0), 1.0)
    p = np.array([_p_value(float(gamma), n, tuple(points.tolist())) for gamma in smallest])
    return p.reshape(np.shape(values)[1:])


def _bounds(gamma: float, num_values: int, grid: Array) -> tuple[Array, Array]:
    """Counts whose tails on both sides have a probability of at least ``gamma / 2``."""
    tail = gamma / 2
    # The inverse is continuous in the count and starts the search; the tail itself decides.
    with np.errstate(all="ignore"):
        start = np.nan_to_num(bdtrik(tail, num_values, grid), nan=0.0)
        stop = np.nan_to_num(bdtrik(1 - tail, num_values, grid), nan=float(num_values))
    lower = np.clip(np.floor(start) - 1, 0, num_values).astype(np.int64)
    upper = np.clip(np.ceil(stop) + 1, 0, num_values).astype(np.int64)
    while (down := (lower > 0) & (bdtr(lower - 1, num_values, grid) >= tail)).any():
        lower -= down
    while (up := bdtr(lower, num_values, grid) < tail).any():
        lower += up
    while (up := (upper < num_values) & (bdtrc(upper, num_values, grid) >= tail)).any():
        upper += up
    while (down := (upper > 0) & (bdtrc(upper - 1, num_values, grid) < tail)).any():
        upper -= down
    return lower, upper


@lru_cache(maxsize=256)
def _band(num_values: int, level: float, num_ranks: int | None, points: tuple[float, ...]) -> EcdfBand:
    grid = np.array(points)

    def inside(log_gamma: float) -> float:
        return path_probability(*_bounds(float(np.exp(log_gamma)), num_values, grid), num_values, grid)

    # By Bonferroni, gamma = (1 - level) / points is small enough.
    low, high = float(np.log((1 - level) / len(grid))), 0.0
    if inside(high) >= level:
        low = high
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) >= level else (low, middle)
    gamma = float(np.exp(low)) * (1 - _TIE)
    lower, upper = _bounds(gamma, num_values, grid)
    attained = path_probability(lower, upper, num_values, grid)
    arrays = (grid, lower / num_values, upper / num_values)
    for array in arrays:
        array.setflags(write=False)  # the cache shares them
    return EcdfBand(num_values, level, attained, gamma, *arrays, num_ranks)


@lru_cache(maxsize=4096)
def _p_value(smallest: float, num_values: int, points: tuple[float, ...]) -> float:
    grid = np.array(points)
    # Paths that are less extreme than the observed one; where nothing can be, p is 1.
    if smallest * (1 + _TIE) >= 1:
        return 1.0
    left = 1 - path_probability(*_bounds(smallest * (1 + _TIE), num_values, grid), num_values, grid)
    return left if left > _ROUNDING else min(len(grid) * smallest, _ROUNDING)


def _points(num_values: int, num_ranks: int | None, grid: Array | None) -> Array:
    if num_values < 1:
        raise ValueError(f"at least 1 value is required, got {num_values}")
    if num_ranks is not None and num_ranks < 2:
        raise ValueError(f"num_ranks must be at least 2 (ranks 0 and 1), got {num_ranks}")
    if grid is not None:
        points = np.asarray(grid, dtype=np.float64)
        if (
            points.ndim != 1
            or len(points) == 0
            or not (points[0] > 0 and points[-1] < 1 and (np.diff(points) > 0).all())
        ):
            raise ValueError(f"a grid of rising points between 0 and 1 is required, got {grid}")
        if num_ranks is None:
            return points
        edges = np.rint(points * num_ranks)
        if np.abs(points * num_ranks - edges).max() > 1e-6:
            raise ValueError(f"the grid must be of multiples of 1 / num_ranks = 1 / {num_ranks}, got {grid}")
        return edges / num_ranks
    if num_ranks is None:
        steps = min(max(num_values, 2), _MAX_POINTS)
        return np.arange(1, steps) / steps
    return np.unique(np.rint(np.linspace(1, num_ranks - 1, min(num_ranks - 1, _MAX_POINTS)))) / num_ranks


def _as_uniform(values: Array, num_ranks: int | None) -> Array:
    array = np.asarray(values, dtype=np.float64)
    low, high = (0.0, 1.0) if num_ranks is None else (0.0, num_ranks - 1.0)
    bad = ~((array >= low) & (array <= high))
    if bad.any():
        raise ValueError(
            f"values in [{low:g}, {high:g}] are required, got {array[bad][0]:g} ({int(bad.sum())} are outside)"
        )
    if num_ranks is None:
        return array
    if (array != np.rint(array)).any():
        raise ValueError(f"ranks are whole numbers, got {array[array != np.rint(array)][0]:g}; leave num_ranks out")
    # Ranks up to r have the probability (r + 1) / num_ranks, the point of the grid that they are counted at.
    uniform: Array = (array + 1) / num_ranks
    return uniform
