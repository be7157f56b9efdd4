"""Bands of the ECDF: exact against enumeration, kept by uniform values at the stated level, left by others."""

import time
from itertools import product
from math import factorial
from typing import Any

import numpy as np
import pytest

from analysis.stats.ecdf_bands import _band, _bounds, ecdf, ecdf_band, uniformity_p_value
from analysis.stats.uniform_paths import path_probability


def enumerated(lower: Any, upper: Any, num_values: int, grid: Any) -> float:
    """The multinomial probability of every path inside, added up."""
    share = np.diff(np.concatenate([[0.0], grid, [1.0]]))
    total = 0.0
    for cell in product(range(num_values + 1), repeat=len(share)):
        path = np.cumsum(cell)
        if path[-1] == num_values and (path[:-1] >= lower).all() and (path[:-1] <= upper).all():
            total += factorial(num_values) * np.prod([p**k / factorial(k) for p, k in zip(share, cell, strict=True)])
    return total


@pytest.mark.parametrize(
    ("lower", "upper"), [([0, 1, 3], [1, 3, 5]), ([0, 0, 0], [6, 6, 6]), ([2, 2, 2], [2, 6, 4]), ([3, 0, 0], [2, 6, 6])]
)
def test_the_probability_of_a_path_is_the_enumerated_one(lower: Any, upper: Any) -> None:
    grid = np.array([0.1, 0.35, 0.8])
    exact = enumerated(np.array(lower), np.array(upper), 6, grid)
    assert path_probability(np.array(lower), np.array(upper), 6, grid) == pytest.approx(exact, abs=1e-14)


def test_convolution_by_fourier_transform_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = np.arange(1, 20) / 20
    spread = 3 * np.sqrt(5000 * grid * (1 - grid))
    bounds = np.floor(5000 * grid - spread), np.ceil(5000 * grid + spread)
    direct = path_probability(*bounds, 5000, grid)
    monkeypatch.setattr("analysis.stats.uniform_paths._DIRECT", 0)
    assert path_probability(*bounds, 5000, grid) == pytest.approx(direct, abs=1e-12)


def test_a_band_of_one_point_is_the_binomial_interval() -> None:
    """20 values at 0.5: P(6 <= count <= 14) = 0.9586, and without 6 and 14 it is 0.8847."""
    band = ecdf_band(20, grid=np.array([0.5]))
    np.testing.assert_allclose([band.lower[0] * 20, band.upper[0] * 20], [6, 14])
    assert band.attained == pytest.approx(1 - 2 * 21700 / 2**20)  # 1 + 20 + 190 + 1140 + 4845 + 15504 paths a side


def test_the_band_is_the_narrowest_that_keeps_its_level() -> None:
    for num_values, num_ranks in ((5, None), (20, 5), (100, 20), (500, 100)):
        band = ecdf_band(num_values, num_ranks=num_ranks)
        assert band.attained >= 0.95
        narrower = _bounds(band.gamma * (1 + 1e-5), num_values, band.grid)
        assert path_probability(*narrower, num_values, band.grid) < 0.95


@pytest.mark.parametrize(("num_values", "num_ranks"), [(500, 100), (60, None), (200, 8)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_uniform_values_leave_the_band_at_its_level(num_values: int, num_ranks: int | None, level: float) -> None:
    """4,000 samples; beyond 4 binomial errors of the exact probability in 6 of 100,000 seeds, for each of six bands."""
    random = np.random.default_rng(num_values)
    shape = (num_values, 4000)
    values = random.random(shape) if num_ranks is None else random.integers(0, num_ranks, shape)
    band = ecdf_band(num_values, level=level, num_ranks=num_ranks)
    miss = 1 - band.attained
    assert abs(band.outside(values).mean() - miss) < 4 * (miss * (1 - miss) / 4000) ** 0.5
    assert level <= band.attained < level + 0.01


def test_the_p_value_is_valid_and_agrees_with_the_band() -> None:
    """P(p <= a) is at most a, and near it: 2,000 samples, 4 binomial errors. One decision with the band, always."""
    random = np.random.default_rng(1)
    ranks = random.integers(0, 20, (200, 2000))
    p = uniformity_p_value(ranks, num_ranks=20)
    for level in (0.5, 0.8, 0.95, 0.99):
        rejected = p <= 1 - level
        assert (rejected == ecdf_band(200, level=level, num_ranks=20).outside(ranks)).all()
        error = (level * (1 - level) / 2000) ** 0.5
        assert 1 - level - 4 * error - 0.01 < rejected.mean() < 1 - level + 4 * error


@pytest.mark.parametrize(("a", "b"), [(1.5, 1.5), (0.7, 0.7), (1.3, 1.0), (1.0, 1.3)])
def test_beta_values_are_rejected(a: float, b: float) -> None:
    """Ranks of a posterior too wide, too narrow, and biased: the power at 500 values is above 0.95, by two errors.

    For the biased ones the mean is off by 5.05 of its standard errors, so that no test could miss more than a few.
    """
    power = ecdf_band(500).outside(np.random.default_rng(2).beta(a, b, (500, 400))).mean()
    assert power - 2 * (power * (1 - power) / 400) ** 0.5 > 0.95


def test_tiny_p_values_are_bounds_not_rounding() -> None:
    values = np.random.default_rng(3).beta(2, 2, 5000)
    p = uniformity_p_value(values)
    assert 0 < p < 1e-10
    assert uniformity_p_value(np.arange(500) % 100, num_ranks=100) > 0.99


def test_ecdf_and_difference_keep_the_shape_of_the_rest() -> None:
    values = np.array([[0.2, 0.9], [0.5, 0.9], [0.5, 0.1]])
    np.testing.assert_allclose(ecdf(values, np.array([0.2, 0.5])), [[1 / 3, 1 / 3], [1, 1 / 3]])
    band = ecdf_band(3, grid=np.array([0.2, 0.5]))
    np.testing.assert_allclose(band.difference(values), [[1 / 3 - 0.2, 1 / 3 - 0.2], [0.5, 1 / 3 - 0.5]])
    assert band.outside(values).shape == (2,)
    ranks = ecdf_band(4, num_ranks=4)
    np.testing.assert_allclose(ranks.grid, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(ranks.difference(np.arange(4)), 0)


def test_ten_thousand_values_take_less_than_half_a_second() -> None:
    _band.cache_clear()
    start = time.process_time()
    for num_ranks in (None, 1000):
        band = ecdf_band(10_000, level=0.9, num_ranks=num_ranks)
    assert time.process_time() - start < 1.0
    assert len(band.grid) == 200
    assert ecdf_band(10_000, level=0.9, num_ranks=1000) is band


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ecdf_band(10, level=95), "level must lie between 0 and 1, got 95; 0.95 is usual"),
        (lambda: ecdf_band(0), "at least 1 value is required, got 0"),
        (lambda: ecdf_band(10, num_ranks=1), "num_ranks must be at least 2"),
        (lambda: ecdf_band(10, grid=np.array([0.5, 1.0])), "rising points between 0 and 1"),
        (lambda: ecdf_band(10, num_ranks=10, grid=np.array([0.25])), "multiples of 1 / num_ranks = 1 / 10"),
        (lambda: ecdf_band(10).outside(np.zeros(9)), "the band is for 10 values, got 9"),
        (lambda: ecdf_band(2).outside(np.array([0.5, np.nan])), "values in \\[0, 1\\] are required, got nan \\(1 are"),
        (lambda: uniformity_p_value(np.array([0, 10]), num_ranks=10), "values in \\[0, 9\\] are required, got 10"),
        (lambda: uniformity_p_value(np.array([0.5, 3]), num_ranks=10), "ranks are whole numbers, got 0.5"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
