"""Which objective is better? Mean differences over training seeds and data at once, with both sources of error."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite, isnan, nan, sqrt
from typing import Any

import numpy as np

from analysis.results.estimate import plus_minus

type Array = np.ndarray[Any, Any]

_LEVEL = 0.95
# Smaller p-values are given as this: the square of their quantile may be no float.
_SMALLEST = 1e-100
_LEAST_SHOWN = 1e-16


@dataclass(frozen=True)
class CrossedMean:
    """The mean of differences ``(seed, datum)`` over the seeds and the data that there might have been, in nats.

    ``se**2 = se_seeds**2 + se_data**2 + se_interaction**2``. With one seed the three cannot be separated: ``se`` is
    ``se_data`` then, the others are NaN, and the estimate is of these two fits only, not of their objectives.

    Attributes:
        estimate: the mean.
        se: its standard error for other seeds, other data and other draws.
        df: effective degrees of freedom: Student's t with as many has this 95 % interval. For other levels see
            `interval`, which has a rule for all of them.
        se_data: what the choice of data adds, by what a datum does in all seeds.
        se_seeds: what the choice of seeds adds, by what a seed does to all data.
        se_interaction: what a seed does to single data, and the draws.
        se_draws: Monte Carlo error of the estimates of log p(x), a part of ``se_interaction`` (of ``se_data`` where all
            seeds were evaluated with the same noise); NaN where no variance was given.
        num_seeds: seeds.
        num_data: data.
        mean_squares: of seeds, data and what is left, see `mean_squares`; of the data alone for one seed, else NaN.
    """

    estimate: float
    se: float
    df: float
    se_data: float
    se_seeds: float
    se_interaction: float
    se_draws: float
    num_seeds: int
    num_data: int
    mean_squares: tuple[float, float, float]

    @property
    def of_objectives(self) -> bool:
        """Whether the estimate is of objectives; with one seed it is of these two fits only."""
        return self.num_seeds > 1

    @property
    def scope(self) -> str:
        """What the estimate is of, in words."""
        if self.of_objectives:
            return f"the objectives, over {self.num_seeds:,} seeds and {self.num_data:,} data"
        return f"these two fits only, not their objectives: one seed, {self.num_data:,} data"

    def interval(self, level: float = _LEVEL) -> tuple[float, float]:
        """A two-sided confidence interval, see `crossed_mean` for its rule.

        Raises:
            ValueError: the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"a level lies between 0 and 1, got {level:g}")
        half = self._margin((1 - level) / 2)
        return self.estimate - half, self.estimate + half

    @cached_property
    def p_value(self) -> float:
        """Two-sided p-value of a mean of 0: 1 less the level of the interval that just reaches 0.

        From two seeds on, anything below 1e-100 is given as that; 0 only where all entries are the same.
        """
        from scipy.optimize import brentq
        from scipy.stats import t

        if self.se == 0:
            return 1.0 if self.estimate == 0 else 0.0
        size = abs(self.estimate)
        few, many = sorted((max(self.num_seeds - 1, 1), self.num_data - 1))
        if not self.of_objectives:
            few = many
        low, high = (2 * float(t.sf(size / self.se, df)) for df in (many, few))

        def excess(log_p: float) -> float:
            return self._margin(float(np.exp(log_p)) / 2) - size

        if low == high:
            return low
        start, end = np.log(max(low, _SMALLEST)), np.log(max(high, _SMALLEST))
        if excess(start) <= 0:
            return float(np.exp(start))
        if excess(end) >= 0:
            return high
        return float(np.exp(brentq(excess, start, end, xtol=1e-12)))

    def summary(self) -> dict[str, Any]:
        """Everything with the 95 % interval and the p-value, JSON-able; what is not known is ``None``."""
        low, high = self.interval()
        values = {
            "estimate": self.estimate,
            "se": self.se,
            "df": self.df,
            "se_data": self.se_data,
            "se_seeds": self.se_seeds,
            "se_interaction": self.se_interaction,
            "se_draws": self.se_draws,
            "low": low,
            "high": high,
            "p_value": self.p_value,
        }
        known = {key: value if isfinite(value) else None for key, value in values.items()}
        return {**known, "num_seeds": self.num_seeds, "num_data": self.num_data, "of_objectives": self.of_objectives}

    def __str__(self) -> str:
        low, high = self.interval()
        named = (("seeds", self.se_seeds), ("data", self.se_data), ("draws", self.se_draws))
        parts = ", ".join(f"{name} {value:.2g}" for name, value in named if not isnan(value))
        ends = " to ".join(plus_minus(float(f"{end:.3g}")) for end in (low, high))
        p_value = f"= {self.p_value:.2g}" if self.p_value >= _LEAST_SHOWN else f"< {_LEAST_SHOWN:g}"
        return (
            f"{plus_minus(self.estimate, self.se, 'nats')} ({parts}), 95 % interval {ends}, p {p_value}; "
            f"it speaks of {self.scope}"
        )

    def _margin(self, tail: float) -> float:
        from scipy.stats import t

        if self.of_objectives:
            return float(margin(*self.mean_squares, self.num_seeds, self.num_data, tail))
        return self.se * float(t.isf(tail, self.num_data - 1))


def crossed_mean(values: Array, draws_variance: Array | None = None) -> CrossedMean:
    """The mean over random seeds and random data of a difference that was measured once for each pair of them.

    The model is d[s, i] = mean + seed[s] + datum[i] + e[s, i] with independent effects, two random factors crossed
    without replication. The components of variance come from the mean squares of the analysis of variance; one that
    comes out negative is set to 0, so that the error is never below that of independent entries.

    The interval adds squared half-widths: t**2 times the seeds' mean square, with Student's t for seeds - 1 degrees of
    freedom, and t**2 times the data's, for data - 1, less the interaction that both hold, see `margin`. Banerjee showed
    that such a sum over independent mean squares covers at least at its level, at every level and whatever the
    ratio of the variances; that the subtraction leaves it so is simulated in the tests. One t with Satterthwaite's
    estimate of the degrees of freedom, the usual choice, does not: with 2 seeds it rejects up to 13 % of true nulls at
    the 5 % level, with 3 up to 8 %, because it takes for negligible what is small by chance. Where the seeds dominate,
    both are t with seeds - 1 degrees of freedom. Where the objectives are the same and seeds hardly matter, this one
    rejects more rarely than 5 %: few seeds cannot show that they do not matter.

    Seeds are taken as normal and pairs of them as independent; data need only be as many as a mean of them requires.

    Args:
        values: log p(x) under one objective less that under the other, in nats, ``(seed, datum)``.
        draws_variance: Monte Carlo variance of each entry, same shape, of draws that are independent across entries;
            it is a part of what the entries' spread shows, and is not added to it.

    Raises:
        ValueError: another shape, fewer than 2 data, or entries that are not finite (the message gives the first), or
            negative variances.

    References:
        Cornfield & Tukey 1956, Average values of mean squares in factorials, Annals of Mathematical Statistics 27: the
        components. Satterthwaite 1946, An approximate distribution of estimates of variance components, Biometrics
        Bulletin 2. Banerjee 1960, Approximate confidence interval for linear functions of means of k populations when
        the population variances are not equal, Sankhya 22: the interval. Hillis 2007, A comparison of denominator
        degrees of freedom methods for multiple observer ROC analysis, Statistics in Medicine 26: the same design, with
        readers for seeds and cases for data. Owen 2007, The pigeonhole bootstrap, arXiv:0712.1111: resampling both
        factors, which counts the interaction more than once.
    """
    from scipy.optimize import brentq
    from scipy.stats import t

    values = _checked("differences", values)
    num_seeds, num_data = values.shape
    se_draws = nan
    if draws_variance is not None:
        variance = _checked("draws_variance", draws_variance)
        if variance.shape != values.shape:
            raise ValueError(
                f"draws_variance is to be of shape {values.shape} as the differences, got {variance.shape}"
            )
        if variance.min() < 0:
            raise ValueError(f"a variance is at least 0, got {variance.min():g}; pass squared standard errors")
        se_draws = sqrt(variance.sum()) / variance.size
    estimate = float(values.mean())
    if num_seeds == 1:
        se = float(values.std(ddof=1)) / sqrt(num_data)
        return CrossedMean(
            estimate, se, float(num_data - 1), se, nan, nan, se_draws, 1, num_data, (nan, num_data * se**2, nan)
        )
    squares = mean_squares(values)
    parts = variance_parts(*squares, num_seeds, num_data)
    seeds, data, interaction = (float(part) for part in parts)
    se = sqrt(seeds + data + interaction)
    few, many = sorted((float(num_seeds - 1), float(num_data - 1)))
    df = few
    if se > 0:
        tail = (1 - _LEVEL) / 2
        critical = float(margin(*squares, num_seeds, num_data, tail)) / se
        if critical <= t.isf(tail, many):
            df = many
        elif critical < t.isf(tail, few):
            df = float(brentq(lambda df: t.isf(tail, df) - critical, few, many))
    return CrossedMean(
        estimate, se, df, sqrt(data), sqrt(seeds), sqrt(interaction), se_draws, num_seeds, num_data, squares
    )


def mean_squares(values: Array) -> tuple[float, float, float]:
    """Mean squares of seeds, data and what is left in the two-way table ``(seed, datum)``, at least 2 by 2."""
    num_seeds, num_data = values.shape
    centred = values - values.mean()
    seed, datum = centred.mean(1, keepdims=True), centred.mean(0, keepdims=True)
    left = centred - seed - datum
    return (
        float(num_data * (seed**2).sum() / (num_seeds - 1)),
        float(num_seeds * (datum**2).sum() / (num_data - 1)),
        float((left**2).sum() / ((num_seeds - 1) * (num_data - 1))),
    )


def variance_parts(seeds: Any, data: Any, left: Any, num_seeds: int, num_data: int) -> tuple[Array, Array, Array]:
    """What seeds, data and their interaction add to the variance of the mean, from mean squares of any one shape.

    For components A, B and E the expected mean squares are n A + E of seeds, S B + E of data and E of what is left, and
    the variance of the mean is A / S + B / n + E / (S n).
    """
    size = num_seeds * num_data
    left = np.asarray(left, dtype=np.float64)
    return np.maximum(seeds - left, 0.0) / size, np.maximum(data - left, 0.0) / size, left / size


def margin(seeds: Any, data: Any, left: Any, num_seeds: int, num_data: int, tail: float) -> Array:
    """Half-width of the interval that leaves ``tail`` on each side, from mean squares, for at least 2 seeds.

    Both mean squares hold the interaction, which counts once: it is taken from the one or from the other, and the wider
    interval is kept. So none is shorter than that of data alone or seeds alone, however small the other came out, nor
    than the variance from `variance_parts` with the more degrees of freedom.
    """
    from scipy.stats import t

    by_seeds, by_data = (float(t.isf(tail, count - 1)) ** 2 for count in (num_seeds, num_data))
    seeds, data, left = (np.asarray(each, dtype=np.float64) for each in (seeds, data, left))
    with_seeds = by_seeds * seeds + by_data * np.maximum(data - left, 0.0)
    with_data = by_data * data + by_seeds * np.maximum(seeds - left, 0.0)
    least = min(by_seeds, by_data) * (np.maximum(seeds - left, 0.0) + np.maximum(data - left, 0.0) + left)
    return np.asarray(np.sqrt(np.maximum(np.maximum(with_seeds, with_data), least) / (num_seeds * num_data)))


def _checked(name: str, values: Any) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1:
        raise ValueError(f"{name} (seed, datum) required, got shape {values.shape}")
    if values.shape[1] < 2:
        raise ValueError(f"{name} of {values.shape[1]} data have no spread over data; evaluate at least 2")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        seed, datum = bad[0]
        raise ValueError(
            f"{name} of seed {seed} at datum {datum} is {values[seed, datum]}, one of {len(bad):,} not finite; look at "
            "that run, or leave it or the datum out for both objectives"
        )
    return values
