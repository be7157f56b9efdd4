"""PSIS agrees with arviz-stats to rounding, whatever the weights and the blocks; k-hat is ordered as the true one."""

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from analysis.stats import pareto_smoothing as psis
from analysis.stats.pareto_smoothing import good_k, pareto_k, pareto_smooth, smooth_rows, tail_size


def reference(log_weight: Any) -> tuple[Any, Any]:
    """arviz-stats, which takes log likelihoods to leave out, the negative of log weights."""
    from arviz_stats.base import array_stats

    smoothed, shape = array_stats.psislw(-log_weight, axis=0)
    return smoothed.T, shape


def weights(kind: str, draws: int) -> Any:
    random = np.random.default_rng(draws)
    normal = random.normal(size=(draws, 12))
    if kind == "normal":
        return normal * np.linspace(0.01, 6, 12)  # tails from bounded to hopeless
    if kind == "uniform":
        return np.log(random.uniform(size=(draws, 12)))
    if kind == "offset":
        return normal - 1e4
    if kind == "zeros":  # a third of the draws have no weight
        return np.where(np.arange(draws)[:, None] % 3 == 0, -np.inf, normal)
    if kind == "close":  # equal but for the fifth digit
        return 1e-5 * normal
    return 100 * normal  # "dominant": one weight is nearly all of the sum


@pytest.mark.parametrize("draws", [30, 31, 100, 225, 226, 1000, 5000])
@pytest.mark.parametrize("kind", ["normal", "uniform", "offset", "zeros", "close", "dominant"])
def test_it_agrees_with_arviz_to_rounding(kind: str, draws: int) -> None:
    log_weight = weights(kind, draws)
    kept = log_weight.copy()
    smoothed, shape = pareto_smooth(log_weight)
    expected, expected_shape = reference(log_weight)
    np.testing.assert_array_equal(np.isfinite(shape), np.isfinite(expected_shape))
    # The sums behind k run over the tail in another order: a few ulps, times 1e4 where an offset has eaten digits.
    np.testing.assert_allclose(shape, expected_shape, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-11, atol=1e-9)
    np.testing.assert_array_equal(log_weight, kept)


def test_ties_agree_as_a_set() -> None:
    """Which of equal weights gets which value is not determined."""
    log_weight = np.round(2 * np.random.default_rng(1).normal(size=(500, 20)), 1)
    smoothed, shape = pareto_smooth(log_weight)
    expected, expected_shape = reference(log_weight)
    assert np.isfinite(shape).all()
    np.testing.assert_allclose(shape, expected_shape, rtol=1e-9)
    np.testing.assert_allclose(np.sort(smoothed, 0), np.sort(expected, 0), rtol=1e-11, atol=1e-12)


def test_where_no_tail_can_be_fitted() -> None:
    """arviz gives NaN where a quarter of the tail ties at its lower end, and where a tail has only five draws."""
    random = np.random.default_rng(2)
    coarse = np.round(random.normal(size=(500, 5)))
    few = random.normal(size=(29, 5))
    for log_weight in (coarse, few):
        smoothed, shape = pareto_smooth(log_weight)
        expected, expected_shape = reference(log_weight)
        assert np.isnan(shape).all()
        assert np.isnan(expected_shape).all()
        np.testing.assert_allclose(np.sort(smoothed, 0), np.sort(expected, 0), atol=1e-12)
    capped = np.minimum(random.normal(size=(500, 1)), 0.0)  # half of the weights are the largest: arviz raises
    with pytest.raises(ValueError, match="All tail values are the same"):
        reference(capped)
    assert np.isnan(pareto_smooth(capped).pareto_k).all()
    assert np.isnan(pareto_k(capped)).all()


def test_one_weight_beyond_all_others_has_an_infinite_tail() -> None:
    """Beside it a part of the tail is below the smallest float. arviz gives NaN weights with a k-hat that looks good,
    or NaN for k-hat."""
    log_weight = np.tile(np.random.default_rng(5).normal(size=(500, 1)), 3)
    log_weight[7] += (600.0, 709.5, 2000.0)
    with np.errstate(all="ignore"):
        expected, expected_shape = reference(log_weight)
    smoothed, shape = pareto_smooth(log_weight)
    assert shape[0] == pytest.approx(expected_shape[0], rel=1e-9)
    assert shape[0] > 5
    assert 0 < expected_shape[1] < 0.2
    assert np.isnan(expected[:, 1]).any()
    assert np.isnan(expected_shape[2])
    assert shape[1:].tolist() == [np.inf, np.inf]
    assert pareto_k(log_weight)[1:].tolist() == [np.inf, np.inf]
    np.testing.assert_allclose(smoothed[7, 1:], 0.0, atol=1e-12)


def test_equal_weights_have_no_tail() -> None:
    with pytest.raises(ValueError, match="All tail values are the same"):
        reference(np.full((100, 1), 3.0))
    random = np.random.default_rng(0)
    equal = np.full((100, 3), 3.0) * (1 + 1e-12 * random.normal(size=(100, 3)))  # up to rounding
    smoothed, shape = pareto_smooth(equal)
    assert (shape == -np.inf).all()
    np.testing.assert_allclose(smoothed, -np.log(100))


def test_smoothed_weights_sum_to_one_and_do_not_exceed_the_largest() -> None:
    log_weight = weights("normal", 1000)
    smoothed, shape = pareto_smooth(log_weight)
    np.testing.assert_allclose(np.exp(smoothed).sum(0), 1)
    rows = np.ascontiguousarray(log_weight.T)
    np.testing.assert_array_equal(smooth_rows(rows), shape)
    assert (rows <= log_weight.max(0)[:, None]).all()
    changed = (rows != log_weight.T).sum(1)
    assert (changed <= tail_size(1000)).all()
    assert (changed > tail_size(1000) / 2).all()


def test_a_smoothed_estimate_varies_less_than_a_raw_one() -> None:
    """Weights of index 0.6: log of the mean, over 2,000 data; the ratio of variances is 0.70 with an error of 0.03."""
    log_weight = -0.6 * np.log(np.random.default_rng(4).uniform(size=(500, 2000)))
    rows = np.ascontiguousarray(log_weight.T)
    raw = np.log(np.exp(rows).mean(1))
    smooth_rows(rows)
    assert np.log(np.exp(rows).mean(1)).var() < 0.9 * raw.var()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_do_not_change_it(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log_weight = weights("normal", 300).astype(dtype)
    whole, shape = pareto_smooth(log_weight)
    monkeypatch.setattr(psis, "_AT_ONCE", 1500)
    parts, again = pareto_smooth(log_weight)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(again, shape)
    np.testing.assert_array_equal(pareto_k(log_weight), shape)
    assert shape.dtype == whole.dtype == np.float64


def test_k_hat_is_ordered_by_the_true_tail_index() -> None:
    """Mean-field on correlation rho has k = |rho|: for precisions P and Q it is 1 - lambda_min(Q^-1 P)."""
    random = np.random.default_rng(0)
    estimates = []
    for rho in (0.2, 0.5, 0.8):
        z = random.normal(size=(2, 5000, 40)) * (1 - rho**2) ** 0.5
        log_target = -(z[0] ** 2 - 2 * rho * z[0] * z[1] + z[1] ** 2) / (2 * (1 - rho**2))
        log_guide = -(z**2).sum(0) / (2 * (1 - rho**2))
        estimates.append(pareto_k(log_target - log_guide).mean())
    assert estimates[0] < estimates[1] < estimates[2]
    np.testing.assert_allclose(estimates, (0.2, 0.5, 0.8), atol=0.15)


@pytest.mark.parametrize("k", [-0.3, 0.3, 0.7, 1.2])
def test_k_hat_of_an_exact_pareto_tail(k: float) -> None:
    """The mean over 200 data is the true index, drawn to 0.5 with the weight of 10 among the 212 draws of the tail.

    Its error is below (1 + |k|) / sqrt(212 x 200) = 0.01 (Zhang & Stephens reach the efficiency of maximum likelihood),
    and five of them are allowed: less than 1 in 1e6.
    """
    uniform = np.random.default_rng(3).uniform(size=(5000, 200))
    log_weight = np.log((uniform**-k - 1) / k)
    expected = (212 * k + 10 * 0.5) / 222
    assert pareto_k(log_weight).mean() == pytest.approx(expected, abs=5 * (1 + abs(k)) / (212 * 200) ** 0.5)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros((10, 3)), "a tail needs at least 25 draws, got 10; raise num_draws"),
        (np.where(np.arange(120).reshape(30, 4) == 2, np.nan, 0.0), "1 data have .* NaN or \\+inf, the first is 2"),
        (np.where(np.arange(120).reshape(30, 4) % 4 > 1, np.inf, 0.0), "2 data have .* NaN or \\+inf, the first is 2"),
        (np.zeros(100), "shape \\(particle, datum\\) required, got \\(100,\\)"),
    ],
)
def test_bad_weights(weight: Any, message: str) -> None:
    for function in (pareto_k, pareto_smooth):
        with pytest.raises(ValueError, match=message):
            function(weight)


def test_a_guide_that_leaves_the_support_is_not_called_good() -> None:
    weight = np.zeros((100, 3))
    weight[0, 1] = -np.inf
    weight[:, 2] = -np.inf
    assert pareto_k(weight).tolist() == [-np.inf, np.inf, np.inf]
    smoothed, shape = pareto_smooth(weight)
    assert np.isneginf(smoothed[:, 2]).all()
    assert np.isnan(shape[2])


def test_sizes_and_thresholds_are_those_of_the_paper() -> None:
    assert [tail_size(draws) for draws in (25, 100, 225, 226, 1000, 5000)] == [5, 20, 45, 45, 94, 212]
    assert good_k(100) == pytest.approx(0.5)
    assert good_k(1000) == pytest.approx(2 / 3)
    assert good_k(5000) == 0.7


def test_memory_is_bounded() -> None:
    """A block of 1e6 float64 numbers is 8 MB; eight of them are more than is held at once."""
    log_weight = np.random.default_rng(0).normal(size=(1000, 5000)).astype(np.float32)
    tracemalloc.start()
    try:
        pareto_k(log_weight)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6


@pytest.mark.slow
def test_ten_thousand_data_of_five_thousand_draws_take_seconds() -> None:
    """0.6 s on one thread of an AMD EPYC for k-hat, 1.8 s with the weights; ten times that is allowed."""
    log_weight = 2 * np.random.default_rng(0).normal(size=(5000, 10_000)).astype(np.float32)
    for function, limit in ((pareto_k, 6.0), (pareto_smooth, 18.0)):
        start = time.perf_counter()
        function(log_weight)
        assert time.perf_counter() - start < limit
