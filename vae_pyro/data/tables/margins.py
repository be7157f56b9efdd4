"""The distribution of one column of numbers as it is: skew, several modes, heavy tails, rounding, values that repeat.

A margin is a function g that rises from a number x to a score u, such that scores of the data are standard normal. It
is a spline through knots, in ``T(x)`` beyond which it is linear, where T is the logarithm of positive numbers, and
``asinh((x - center) / scale)`` of others: tails are normal on the scale of T, and so heavier than normal on that of x.
Off lattices the pieces are rational quadratic, with continuous slopes; on them linear, since roundings alone are seen.
A value that repeats (a heap) has an interval of scores of its own.

References:
    Durkan et al. 2019, Neural spline flows, sec. 3.1 (the pieces and their inverse). arXiv:1906.04032
    Fritsch & Butland 1984, A method for constructing local monotone piecewise cubic interpolants, SIAM Journal on
    Scientific and Statistical Computing 5 (harmonic means as slopes). doi:10.1137/0905021
    Ferguson 1973, A Bayesian analysis of some nonparametric problems, Annals of Statistics 1 (shares of points).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_pyro.data.tables.cells import Values
from vae_pyro.data.tables.schema import CONTINUOUS, Column

# Knots that a margin has room for, and score of the bound that a heap is to the values.
CAPACITY, BOUND = 512, 20.0
# Lattices of more points than this are dense beside anything that a fit resolves.
_MOST_POINTS = 50_000
# A repeated value is a heap from so many repetitions on, where smooth values would have so many with this probability.
_LEAST_REPEATED, _CHANCE = 5, 1e-5
# The lowest or highest value bounds the column where at least this share, and so many, of the data are there.
_BOUNDING, _FEWEST_BOUNDING = 0.01, 10
# Probability with which the extreme of data has a larger score than its tail is allowed to give it.
_IMPOSSIBLE = 0.01
# Rows for each point of a lattice from which each has a share of its own.
_ROWS_OF_A_POINT = 20
_MOST_LEVELS = 96
_STRENGTHS = 10.0 ** np.arange(0, 6.5, 0.5)


@dataclass(frozen=True, eq=False)
class Margin:
    """Knots of the spline, in rising order.

    Attributes:
        x: ``(knot,)``; a heap of numbers that lie on no lattice is two knots of the same x.
        u: scores, ``(knot,)``.
        left: slope du/dT at the left end of each interval between knots, ``(knot - 1,)``.
        right: at the right end, ``(knot - 1,)``.
        tails: slopes below the first knot and above the last.
        center: of T.
        scale: of T.
    """

    x: Values
    u: Values
    left: Values
    right: Values
    tails: tuple[float, float]
    center: float
    scale: float


def lattice_step(column: Column) -> float:
    """Spacing of the lattice that a column's density is constant between, 0 where it is smooth."""
    if column.kind not in CONTINUOUS or column.step is None or column.low is None or column.high is None:
        return 0.0
    return column.step if column.high - column.low <= _MOST_POINTS * column.step else 0.0


def fit_margin(values: Values, step: float, positive: bool) -> Margin:
    """The margin of numbers.

    The smooth part is the empirical distribution function at levels that are evenly spaced in scores, of which there
    are about n^0.4, and where it is off by more than 1 / sqrt(n) otherwise, as it is about gaps. Points of a lattice
    with 20 data each on average have shares of their own, shrunk towards the smooth part by a Dirichlet process whose
    strength has the best leave-one-out likelihood; on other lattices, and off them, so have values that repeat more
    often than chance.

    Args:
        values: observed numbers, ``(value,)``, at least 2 of which differ.
        step: see `lattice_step`.
        positive: whether all numbers that can be are above zero.
    """
    cells = np.round(values / step) if step else values.astype(np.float32).astype(np.float64)
    points, counts = np.unique(cells, return_counts=True)
    if step:
        points = points * step
    center, scale = (0.0, 1.0) if positive else _center_scale(values)
    shape = _Shape(step, positive, center, scale, len(values))
    span = (points[-1] - points[0]) / step + 1 if step else np.inf
    if span <= min(len(values) / _ROWS_OF_A_POINT, CAPACITY - 1):
        return shape.of_points(points, counts)
    heaped = np.zeros(len(points), dtype=bool)
    for _ in range(3):
        found = shape.heaps(points, counts, heaped)
        if (found == heaped).all():
            break
        heaped = found
    return shape.of_heaps(points, counts, heaped)


def _center_scale(values: Values) -> tuple[float, float]:
    low, center, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(center), float(high - low or values.std() or 1.0)


def _refined(x: Values, z: Values, edges: Values, levels: Values, total: int) -> tuple[Values, Values]:
    """Further knots, one after the other where the distribution function between knots is off the most."""
    from scipy.special import ndtr, ndtri

    inner = (levels > ndtr(z[0])) & (levels < ndtr(z[-1]))
    edges, levels = edges[inner], levels[inner]
    for _ in range(_MOST_LEVELS - len(z)):
        off = np.abs(ndtr(np.interp(edges, x, z)) - levels)
        if not len(off) or off.max() < 1 / total**0.5:
            break
        place = int(off.argmax())
        at = int(np.searchsorted(x, edges[place]))
        x, z = np.insert(x, at, edges[place]), np.insert(z, at, ndtri(levels[place]))
    return x, np.maximum.accumulate(z)


def _reaching(slope: float, distance: float, z: float, total: int) -> float:
    """Slope of a tail in which the extreme of the data has a score that one of so many normal numbers can have.

    Args:
        slope: of the spline at the last knot.
        distance: from there to the extreme, on the scale of T.
        z: score of the last knot, away from 0.
        total: number of data.
    """
    from scipy.special import ndtri

    possible, expected = -ndtri(_IMPOSSIBLE / total), -ndtri(0.5 / total)
    outlying = distance > 0 and z + slope * distance > possible and expected > z
    return (expected - z) / distance if outlying else slope


@dataclass(frozen=True)
class _Smooth:
    """A distribution function that is linear, in scores, between knots of T."""

    t: Values
    z: Values
    below: float
    above: float

    def scores(self, t: Values) -> Values:
        inside = np.interp(t, self.t, self.z)
        low, high = self.z[0] + self.below * (t - self.t[0]), self.z[-1] + self.above * (t - self.t[-1])
        return np.where(t < self.t[0], low, np.where(t > self.t[-1], high, inside))


@dataclass(frozen=True)
class _Shape:
    """What is known of a column before its margin."""

    step: float
    positive: bool
    center: float
    scale: float
    size: int

    def transform(self, x: Values) -> Values:
        if self.positive:
            return np.log(np.maximum(x, self.step * 0.25 if self.step else np.finfo(np.float64).tiny))
        return np.arcsinh((x - self.center) / self.scale)

    def smooth(self, points: Values, counts: Any) -> _Smooth:
        """The smooth part of points that stand for so many data each; on a lattice they are spread over their cells."""
        from scipy.special import ndtr, ndtri

        total = int(counts.sum())
        if self.step:
            edges = np.stack([points - self.step / 2, points + self.step / 2], 1).ravel()
            upto = np.cumsum(counts)
            levels = np.stack([upto - counts, upto], 1).ravel() / total
        else:
            edges, levels = points, (np.cumsum(counts) - 0.5 * counts) / total
        number = int(np.clip(round(total**0.4), 4, _MOST_LEVELS // 2))
        outer = float(-ndtri(min(2.0 / max(total, 5), 0.3)))
        z = np.linspace(-outer, outer, number)
        x, z = _refined(np.interp(ndtr(z), levels, edges), z, edges, levels, total)
        t = self.transform(x)
        keep = np.append(True, np.diff(t) > 1e-9)
        t, z = t[keep], z[keep]
        if len(t) < 2:
            middle = float(t[0])
            width = max(self.step / (2 * self.scale), 1e-3)
            return _Smooth(np.array([middle - width, middle + width]), np.array([-1.0, 1.0]), 1 / width, 1 / width)
        inner = min(2, len(t) - 1)
        below, above = (z[inner] - z[0]) / (t[inner] - t[0]), (z[-1] - z[-1 - inner]) / (t[-1] - t[-1 - inner])
        lowest, highest = self.transform(points[[0, -1]])
        return _Smooth(
            t,
            z,
            _reaching(float(below), t[0] - lowest, -z[0], total),
            _reaching(float(above), highest - t[-1], z[-1], total),
        )

    def of_points(self, points: Values, counts: Any) -> Margin:
        """Each point of the lattice with its own share."""
        smooth = self.smooth(points, counts)
        lattice = points[0] + self.step * np.arange(round(float(points[-1] - points[0]) / self.step) + 1)
        number = np.zeros(len(lattice))
        number[np.round((points - points[0]) / self.step).astype(int)] = counts
        edges = np.append(lattice - self.step / 2, lattice[-1] + self.step / 2)
        base = self._level(smooth, edges)
        share = np.maximum(np.diff(base), 1e-12)
        seen = number > 0
        likelihood = [
            (number[seen] * np.log((number[seen] - 1 + a * share[seen]) / (self.size - 1 + a))).sum()
            for a in _STRENGTHS
        ]
        strength = _STRENGTHS[int(np.argmax(likelihood))]
        part = strength / (self.size + strength)
        heap = number / (self.size + strength)
        level = part * base + np.append(0, np.cumsum(heap))
        rest = part * (1 - base) + np.append(np.cumsum(heap[::-1])[::-1], 0)
        return self._margin(edges, level, rest, smooth, heap[0], heap[-1])

    def heaps(self, points: Values, counts: Any, heaped: Any) -> Any:
        """Which points repeat more often than the smooth part of the others has them."""
        from scipy.special import pdtrc

        most = (CAPACITY - _MOST_LEVELS) // 2
        if self.step:
            rest = self.smooth(points[~heaped], counts[~heaped]) if (~heaped).sum() > 1 else None
            if rest is None:
                return heaped
            share = self._level(rest, points + self.step / 2) - self._level(rest, points - self.step / 2)
            expected = np.maximum(counts[~heaped].sum() * share, 1e-12)
            found = (counts >= _LEAST_REPEATED) & (pdtrc(counts - 1, expected) < _CHANCE)
            gain = counts * np.log(counts / expected)
        else:
            found, gain = counts >= _LEAST_REPEATED, counts.astype(float)
        if found.sum() > most:
            chosen = np.argsort(np.where(found, -gain, np.inf), kind="stable")[:most]
            found = np.isin(np.arange(len(points)), chosen)
        if (~found).sum() < 2:  # something has to be left for the smooth part
            found[np.argsort(counts, kind="stable")[:2]] = False
        return found

    def of_heaps(self, points: Values, counts: Any, heaped: Any) -> Margin:
        """Some points with their own shares, beside a smooth part."""
        smooth = self.smooth(points[~heaped], counts[~heaped])
        share, at = counts[heaped] / self.size, points[heaped]
        part = 1 - float(share.sum())
        x = self._inverse(smooth.t)
        half = self.step / 2
        x = np.unique(np.concatenate([x, at - half, at + half]))
        if not self.step:
            x = x[~np.isin(x, at)]
            x = np.sort(np.concatenate([x, at, at]))
        base = self._level(smooth, x)
        if self.step:
            inside = np.clip((x[:, None] - at + half) / self.step, 0, 1)
        else:
            second = np.append(False, np.diff(x) == 0)
            inside = ((x[:, None] > at) | ((x[:, None] == at) & second[:, None])).astype(float)
        level = part * base + inside @ share
        rest = part * (1 - base) + (1 - inside) @ share
        lowest = share[0] if len(at) and at[0] == points[0] else 0.0
        highest = share[-1] if len(at) and at[-1] == points[-1] else 0.0
        return self._margin(x, level, rest, smooth, lowest, highest)

    def _level(self, smooth: _Smooth, x: Values) -> Values:
        from scipy.special import ndtr

        level: Values = ndtr(smooth.scores(self.transform(x)))
        return level

    def _inverse(self, t: Values) -> Values:
        return np.exp(t) if self.positive else self.center + self.scale * np.sinh(t)

    def _margin(self, x: Values, level: Values, rest: Values, smooth: _Smooth, lowest: float, highest: float) -> Margin:
        from scipy.special import ndtri

        tiny = 1e-12
        u = np.where(level < 0.5, ndtri(np.clip(level, tiny, 1)), -ndtri(np.clip(rest, tiny, 1)))
        least = max(_BOUNDING, _FEWEST_BOUNDING / self.size)
        if lowest >= least:  # next to nothing lies below
            u[0] = -BOUND
        if highest >= least:
            u[-1] = BOUND
        u = np.maximum.accumulate(u)
        t = self.transform(x)
        width = np.diff(t)
        flat = width <= 0
        secant = np.where(flat, 0.0, np.maximum(np.diff(u), 1e-12) / np.where(flat, 1.0, width))
        left, right = secant.copy(), secant.copy()
        if not self.step:
            before, after = secant[:-1], secant[1:]
            smoothed = 2 * before * after / np.where(before + after > 0, before + after, 1.0)
            joint = ~(flat[:-1] | flat[1:])
            right[:-1] = np.where(joint, smoothed, right[:-1])
            left[1:] = np.where(joint, smoothed, left[1:])
        return Margin(x, u, left, right, (smooth.below, smooth.above), self.center, self.scale)
