"""Means over seeds and data meet the analysis of variance by hand, seldom tell equals apart, and see what differs."""

import itertools
import re
from math import nan, sqrt

import numpy as np
import pytest
from scipy import stats

from analysis.density.comparison import Comparison
from analysis.density.elpd import ELPD
from analysis.stats.crossed import CrossedMean, crossed_mean, margin, mean_squares, variance_parts
from analysis.stats.multiplicity import holm

# The statistical tests below have fixed seeds; over seeds, each fails with a probability of at most 1e-3.
_FAILURE = 1e-3

TABLE = np.array([[1.0, 2.0, 6.0], [3.0, 6.0, 6.0]])


def table(seed: int, num_seeds: int, num_data: int, *, seeds: float, data: float, rest: float) -> np.ndarray:
    """A normal table of mean 0 with these standard deviations."""
    random = np.random.default_rng(seed)
    return (
        seeds * random.standard_normal((num_seeds, 1))
        + data * random.standard_normal((1, num_data))
        + rest * random.standard_normal((num_seeds, num_data))
    )


def test_a_small_table_by_hand() -> None:
    # Means of rows 3, 5, of columns 2, 4, 6, of all 4; sums of squares 6, 16, 4 with 1, 2, 2 degrees of freedom.
    assert mean_squares(TABLE) == pytest.approx((6, 8, 2))
    found = crossed_mean(TABLE)
    assert found.estimate == pytest.approx(4)
    parts = found.se_seeds**2, found.se_data**2, found.se_interaction**2
    assert parts == pytest.approx(((6 - 2) / 6, (8 - 2) / 6, 2 / 6))
    assert found.se == pytest.approx(sqrt(2))
    half = sqrt((12.706204736**2 * 6 + 4.302652730**2 * (8 - 2)) / 6)
    assert found.interval() == pytest.approx((4 - half, 4 + half))
    assert stats.t.isf(0.025, found.df) * found.se == pytest.approx(half)
    assert 1 < found.df < 2
    assert (found.num_seeds, found.num_data, found.of_objectives) == (2, 3, True)


def test_negative_components_are_none_and_leave_the_error_of_independent_entries() -> None:
    found = crossed_mean(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert mean_squares(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx((0, 0, 1))
    assert (found.se_seeds, found.se_data) == (0, 0)
    assert found.se == pytest.approx(0.5)  # that of 4 independent entries of variance 1
    assert found.interval()[1] - 0.5 == pytest.approx(stats.t.isf(0.025, 1) * 0.5)
    assert found.df == 1


def test_seeds_that_came_out_alike_do_not_shorten_the_interval_below_that_of_the_data() -> None:
    values = table(3, 2, 50, seeds=0, data=1, rest=1)
    values -= values.mean(1, keepdims=True)
    found = crossed_mean(values)
    _, data, rest = mean_squares(values)
    assert found.se_seeds == 0
    assert found.se == pytest.approx(sqrt(data / 100))
    assert found.interval()[1] == pytest.approx(stats.t.isf(0.025, 49) * sqrt(data / 100))
    assert rest > 0


def elpd(pointwise: np.ndarray) -> ELPD:
    nothing = np.zeros(len(pointwise))
    return ELPD(pointwise, nothing, nothing, 100, nothing, pointwise, pointwise, pointwise, np.arange(len(pointwise)))


def test_copies_of_one_seed_and_one_seed_alone_have_the_paired_standard_error() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(-90, 10, 40), random.normal(-91, 10, 40)
    paired = Comparison(("first", "second"), (elpd(first), elpd(second)))
    row = second - first
    copies, single = crossed_mean(np.stack([row] * 4)), crossed_mean(row[None])
    for found in (copies, single):
        assert 40 * found.estimate == pytest.approx(paired.difference[1])
        assert 40 * found.se == pytest.approx(paired.se[1])
        assert found.se_data == pytest.approx(found.se)
        assert found.df == pytest.approx(39)
        test = stats.ttest_rel(second, first)
        assert found.p_value == pytest.approx(test.pvalue)
        assert found.interval() == pytest.approx(tuple(test.confidence_interval()))
    assert copies.se_seeds == pytest.approx(0, abs=1e-9)


def test_one_seed_speaks_of_two_fits_and_says_so() -> None:
    single = crossed_mean(TABLE[:1], np.ones((1, 3)))
    assert np.isnan([single.se_seeds, single.se_interaction]).all()
    assert not single.of_objectives
    assert "the two fits only, not their objectives" in str(single)
    assert single.summary()["se_seeds"] is None
    assert single.summary()["of_objectives"] is False
    assert single.se_draws == pytest.approx(1 / sqrt(3))
    several = crossed_mean(TABLE)
    assert "it refers to the objectives, from 2 seeds and 3 data" in str(several)
    assert several.summary()["se_draws"] is None
    assert several.summary()["p_value"] == several.p_value
    assert f"95 % interval \u22129.41 to 17.4, p = {several.p_value:.2g};" in str(several)
    assert "p < 1e-16" in str(crossed_mean(100 + np.stack([np.arange(300) % 7] * 2)))


def test_seeds_and_data_are_treated_alike() -> None:
    values = 0.3 + table(1, 4, 9, seeds=1, data=0.5, rest=1)
    found, turned = crossed_mean(values), crossed_mean(values.T)
    assert found.interval() == pytest.approx(turned.interval())
    assert (found.se, found.df, found.p_value) == pytest.approx((turned.se, turned.df, turned.p_value))
    assert (found.se_seeds, found.se_data) == pytest.approx((turned.se_data, turned.se_seeds))
    moved = crossed_mean(5 - 2 * values)
    assert moved.interval() == pytest.approx(tuple(5 - 2 * end for end in found.interval()[::-1]))


@pytest.mark.parametrize("shape", [(1, 20), (2, 2), (2, 200), (3, 30), (5, 1000), (30, 4)])
@pytest.mark.parametrize("shift", [0.01, 1.0, 30.0])
def test_the_p_value_is_the_level_whose_interval_reaches_zero(shape: tuple[int, int], shift: float) -> None:
    found = crossed_mean(shift + table(2, *shape, seeds=0.1, data=0.2, rest=1))
    assert 0 < found.p_value < 1
    if found.p_value > 1e-13:  # a level nearer to 1 is not a float
        low, high = found.interval(1 - found.p_value)
        nearest = min(abs(low), abs(high))
        assert nearest == pytest.approx(0, abs=1e-3 * (high - low))
    few, many = sorted((max(shape[0] - 1, 1), shape[1] - 1))
    bounds = [2 * stats.t.sf(abs(found.estimate) / found.se, df) for df in (many, few)]
    assert bounds[0] * (1 - 1e-9) <= found.p_value <= bounds[1] * (1 + 1e-9)
    assert (found.p_value < 0.05) == (not found.interval()[0] <= 0 <= found.interval()[1])
    assert stats.t.isf(0.025, found.df) * found.se == pytest.approx(found.interval()[1] - found.estimate)


def test_the_ends_of_p_values() -> None:
    assert crossed_mean(np.zeros((3, 5))).p_value == 1
    assert crossed_mean(np.ones((3, 5))).p_value == 0
    far = crossed_mean(1e6 + np.stack([np.arange(2000) % 7] * 2) / 7).p_value
    assert far == pytest.approx(1e-100, rel=1e-6)
    exact = table(0, 3, 40, seeds=1, data=1, rest=1)
    assert crossed_mean(exact - exact.mean()).p_value == pytest.approx(1)


def satterthwaite(seeds: np.ndarray, data: np.ndarray, left: np.ndarray, num_seeds: int, num_data: int) -> np.ndarray:
    """Half-width of the usual interval: one t, with estimated degrees of freedom."""
    a, b, e = variance_parts(seeds, data, left, num_seeds, num_data)
    df = (a + b + e) ** 2 / ((a + e) ** 2 / (num_seeds - 1) + b**2 / (num_data - 1))
    return np.asarray(np.sqrt(a + b + e) * stats.t.isf(0.025, df))


def simulated(
    seed: int, num_seeds: int, num_data: int, seeds: float, data: float, size: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Means and mean squares of normal tables by their joint law, for components with an interaction of variance 1.

    ``seeds`` and ``data`` are what the expected mean squares have beyond that of what is left.
    """
    random = np.random.default_rng(seed)
    dfs = num_seeds - 1, num_data - 1, (num_seeds - 1) * (num_data - 1)
    expected = 1 + seeds, 1 + data, 1.0
    squares = tuple(mean * random.chisquare(df, size) / df for mean, df in zip(expected, dfs, strict=True))
    means = sqrt((1 + seeds + data) / (num_seeds * num_data)) * random.standard_normal(size)
    return means, squares  # type: ignore[return-value]


def test_the_same_objectives_differ_significantly_in_at_most_5_percent_whatever_dominates() -> None:
    """Over 384 settings no rate is beyond 5 %, at 1 % and 5 %; the usual rule fails for 2 and for 3 seeds."""
    size, worst_usual = 40_000, {2: 0.0, 3: 0.0}
    settings = list(itertools.product((2, 3, 5, 10), (5, 30, 2000), (0, 0.3, 1, 3, 10, 30, 100, 1e4), (0, 0.3, 3, 30)))
    tail = _FAILURE / (2 * len(settings))
    for index, (num_seeds, num_data, seeds, data) in enumerate(settings):
        means, squares = simulated(index, num_seeds, num_data, seeds, data, size)
        for level in (0.05, 0.01):
            rejected = int((np.abs(means) > margin(*squares, num_seeds, num_data, level / 2)).sum())
            assert rejected <= stats.binom.isf(tail, size, level), (num_seeds, num_data, seeds, data, level)
        if num_seeds in worst_usual and num_data == 2000:
            usual = float((np.abs(means) > satterthwaite(*squares, num_seeds, num_data)).mean())
            worst_usual[num_seeds] = max(worst_usual[num_seeds], usual)
    assert worst_usual[2] > 0.11
    assert worst_usual[3] > 0.07


def log_px(random: np.random.Generator, num_seeds: int, easy: np.ndarray, seeds: float, gain: float) -> np.ndarray:
    """log p(x) of one objective's fits: how easy each datum is, how good each seed, and what a seed does to a datum."""
    shape = num_seeds, len(easy)
    return gain + easy + seeds * random.standard_normal((num_seeds, 1)) + random.standard_normal(shape)


@pytest.mark.parametrize(("num_seeds", "num_data"), [(2, 300), (3, 30), (3, 1000), (5, 100), (10, 50)])
@pytest.mark.parametrize("seeds", [0.0, 0.1, 1.0])
def test_the_same_objective_twice_is_indistinguishable_in_95_percent_of_repetitions(
    num_seeds: int, num_data: int, seeds: float
) -> None:
    """From log p(x) to the p-value, with 1000 repetitions; where seeds dominate the rate is 5 %, and not far less."""
    random, repetitions, rejected = np.random.default_rng(num_seeds * num_data), 1000, 0
    for _ in range(repetitions):
        easy = random.normal(-90, 10, num_data)
        first, second = (log_px(random, num_seeds, easy, seeds, 0.0) for _ in range(2))
        low, high = crossed_mean(first - second).interval()
        rejected += not low <= 0 <= high
    assert rejected <= stats.binom.isf(_FAILURE / 30, repetitions, 0.05)
    if seeds == 1:
        assert rejected >= stats.binom.ppf(_FAILURE / 30, repetitions, 0.05) > 0


@pytest.mark.parametrize(("num_seeds", "times"), [(2, 40.0), (3, 10.0), (5, 5.0), (10, 4.0)])
def test_a_real_difference_is_found_as_often_as_by_the_exact_test(num_seeds: int, times: float) -> None:
    """Of ``times`` true standard errors: where seeds dominate with the power of t, where data do with that of n - 1."""
    size, num_data = 20_000, 500
    for seeds, data, df in ((1e6, 1.0, num_seeds - 1), (0.0, 1e6, num_data - 1)):
        means, squares = simulated(7, num_seeds, num_data, seeds, data, size)
        gain = times * sqrt((1 + seeds + data) / (num_seeds * num_data))
        found = int((np.abs(means + gain) > margin(*squares, num_seeds, num_data, 0.025)).sum())
        power = float(stats.nct.sf(stats.t.isf(0.025, df), df, times))
        assert power > 0.9
        assert abs(found - size * power) < 5 * sqrt(size * power * (1 - power)) + 0.005 * size
    # A cost of the guarantee: between the two, with seeds that do not matter, the loss against known variances.
    means, squares = simulated(8, num_seeds, num_data, 0.0, 1.0, size)
    gain = times * sqrt(2 / (num_seeds * num_data))
    assert (np.abs(means + gain) > margin(*squares, num_seeds, num_data, 0.025)).mean() > 0.9


def test_the_squared_errors_are_right_on_average_and_each_source_moves_its_own() -> None:
    """Components 0.2, 0.5 and 1 in standard deviation; means of 1500 tables within 5 of their standard errors."""
    truth = np.array([0.2**2 / 4, 0.5**2 / 60, 1 / 240])
    found = [crossed_mean(table(seed, 4, 60, seeds=0.2, data=0.5, rest=1)) for seed in range(1500)]
    parts = np.array([[each.se_seeds**2, each.se_data**2, each.se_interaction**2] for each in found])
    error = parts.std(0, ddof=1) / sqrt(len(found))
    # Setting a negative component to 0 adds a little to the seeds' part: within a tenth.
    np.testing.assert_array_less(np.abs(parts.mean(0) - truth), 5 * error + np.array([0.1, 0.001, 0.0]) * truth)
    means = np.array([each.estimate for each in found])
    assert means.var() == pytest.approx(truth.sum(), rel=5 * sqrt(2 / len(found)))
    assert parts.sum(1).mean() == pytest.approx(truth.sum(), rel=0.1)


def test_noise_of_the_draws_is_reported_and_not_added_twice() -> None:
    """Fits without any other interaction: what is left of the table is the draws' noise."""
    random = np.random.default_rng(5)
    variance = random.uniform(0.5, 1.5, (3, 4000))
    exact = table(1, 3, 4000, seeds=0.1, data=0.3, rest=0)
    noisy = exact + np.sqrt(variance) * random.standard_normal(variance.shape)
    found = crossed_mean(noisy, variance)
    assert found.se_draws == pytest.approx(sqrt(variance.sum()) / 12_000)
    assert found.se == crossed_mean(noisy).se
    assert np.isnan(crossed_mean(noisy).se_draws)
    # The relative standard deviation of the variance of 8000 residuals is 1/63, of its root half of that.
    assert found.se_interaction == pytest.approx(found.se_draws, rel=5 / 126)
    assert f"draws {found.se_draws:.2g}" in str(found)


@pytest.mark.parametrize(
    ("values", "variance", "message"),
    [
        (np.zeros(5), None, "must have shape (seed, datum), got (5,)"),
        (np.zeros((2, 3, 4)), None, "must have shape (seed, datum), got (2, 3, 4)"),
        (np.zeros((0, 3)), None, "must have shape (seed, datum), got (0, 3)"),
        (np.zeros((3, 1)), None, "differences of one datum have no spread over data; evaluate at least 2"),
        (
            np.array([[0, 1], [2, nan]]),
            None,
            "differences of seed 1 at datum 1 is nan, one of 1 values that are not finite",
        ),
        (
            np.array([[np.inf, 1], [2, nan]]),
            None,
            "differences of seed 0 at datum 0 is inf, one of 2 values that are not finite",
        ),
        (
            np.zeros((2, 3)),
            np.zeros((3, 2)),
            "draws_variance must have the shape (2, 3) of the differences, got (3, 2)",
        ),
        (np.zeros((2, 3)), np.full((2, 3), nan), "draws_variance of seed 0 at datum 0 is nan"),
        (np.zeros((2, 3)), np.full((2, 3), -1), "draws_variance must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(values: np.ndarray, variance: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        crossed_mean(values, variance)


@pytest.mark.parametrize("level", [0.0, 1.0, nan, 95.0])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        crossed_mean(TABLE).interval(level)


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("num_data", [30, 200, 2000])
def test_the_rate_holds_for_data_that_are_skewed_and_seeds_that_change_a_kind_of_data(
    num_seeds: int, num_data: int
) -> None:
    """Exponential data effects, and an interaction of rank one (each seed is good at its own kind of data).

    The rate may be beyond 5 % by 1 %: that much the t test of 30 exponential data alone is off (it rejects 7 %).
    """
    random, repetitions = np.random.default_rng(num_seeds * num_data), 4000 if num_data < 1000 else 1000
    allowed = 0.08 if num_data == 30 else 0.06
    for seeds, data, kind in itertools.product((0.0, 0.1, 1.0), (0.0, 0.3, 3.0), (0.0, 1.0)):
        rejected = 0
        for _ in range(repetitions):
            values = seeds * random.standard_normal((num_seeds, 1)) + data * (random.exponential(size=num_data) - 1)
            values = values + 0.5 * random.standard_normal((num_seeds, num_data))
            values = values + kind * random.standard_normal((num_seeds, 1)) * random.standard_normal(num_data)
            half = margin(*mean_squares(values), num_seeds, num_data, 0.025)
            rejected += bool(abs(values.mean()) > half)
        assert rejected <= stats.binom.isf(_FAILURE / 216, repetitions, allowed), (seeds, data, kind)


# --- Holm's correction


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.4, 0.5, 0.9])), [1, 1, 1])
    np.testing.assert_allclose(holm(np.array([0.02, 0.02])), [0.04, 0.04])
    np.testing.assert_allclose(holm(np.array([0.3])), [0.3])
    assert holm(np.array([])).shape == (0,)
    given = np.array([0.2, 0.1])
    holm(given)
    assert given.tolist() == [0.2, 0.1]


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closed_test_of_bonferroni(seed: int) -> None:
    """Its adjusted p-value is the largest Bonferroni p-value of all sets of hypotheses that hold the one."""
    p = np.random.default_rng(seed).beta(0.5, 3, 6).round(2)
    sets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
    closed = [max(min(1.0, len(s) * p[list(s)].min()) for s in sets if i in s) for i in range(6)]
    np.testing.assert_allclose(holm(p), closed)


def test_any_false_finding_is_as_rare_as_stated_and_true_ones_are_more_than_bonferronis() -> None:
    """Six comparisons with one baseline, so that their z correlate by 0.5; three are null."""
    random, size = np.random.default_rng(0), 20_000
    z = sqrt(0.5) * (random.standard_normal((size, 6)) + random.standard_normal((size, 1))) + np.array(
        [0, 0, 0, 3, 4, 5]
    )
    p = 2 * stats.norm.sf(np.abs(z))
    adjusted = np.array([holm(row) for row in p])
    false = int((adjusted[:, :3] <= 0.05).any(1).sum())
    assert false <= stats.binom.isf(_FAILURE, size, 0.05)
    assert (p[:, :3] <= 0.05).any(1).mean() > 0.1  # which nothing corrects
    bonferroni = p <= 0.05 / 6
    assert ((adjusted <= 0.05) | ~bonferroni).all()
    assert (adjusted[:, 3:] <= 0.05).mean() > bonferroni[:, 3:].mean() + 0.02


@pytest.mark.parametrize(
    ("p_values", "message"),
    [
        ([[0.1, 0.2]], "p_values must have shape (comparison,), got (1, 2)"),
        ([0.1, nan], "p_values[1] is nan, outside [0, 1]"),
        ([0.1, 0.2, 1.5], "p_values[2] is 1.5, outside [0, 1]"),
        ([-0.1], "p_values[0] is -0.1, outside [0, 1]"),
    ],
)
def test_what_is_no_p_value_is_refused(p_values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        holm(np.array(p_values))


def test_a_result_is_frozen() -> None:
    found: CrossedMean = crossed_mean(TABLE)
    with pytest.raises(AttributeError):
        found.estimate = 0.0  # type: ignore[misc]
