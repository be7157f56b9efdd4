"""Precision, recall, density, coverage and Fréchet distance against closed forms, with errors that can be believed."""

import json

import numpy as np
import pytest
from scipy.linalg import sqrtm

from analysis.stats.fidelity import (
    Array,
    as_rows,
    expected_coverage,
    frechet_distance,
    gaussian_frechet,
    neighbourhoods,
)


def _normal(seed: int, *shape: int) -> Array:
    draws: Array = np.random.default_rng(seed).normal(size=shape)
    return draws


def test_density_and_coverage_meet_their_expectations_under_equality() -> None:
    """Means over 200 repetitions within 4 SE (1 of 16,000 seeds each). The expectation of density is exactly 1."""
    figures = []
    for seed in range(200):
        result = neighbourhoods(_normal(seed, 60, 2), _normal(1000 + seed, 80, 2), num_resamples=2, seed=0)
        figures.append([result.density - 1, result.coverage - result.expected_coverage])
    mean, error = np.mean(figures, 0), np.std(figures, 0) / 200**0.5
    assert (np.abs(mean) < 4 * error).all()
    assert (error < 0.01).all()


def test_expected_coverage_is_the_chance_of_another_draw() -> None:
    """It is missed where a real datum's k nearest, of N - 1 others and M generated, are all real."""
    assert expected_coverage(2, 2, 1) == pytest.approx(1 - 1 / 3)
    assert expected_coverage(3, 2, 2) == pytest.approx(1 - (2 * 1) / (4 * 3))
    assert expected_coverage(10**9, 10**9, 5) == pytest.approx(1 - 2**-5)


def test_the_definitions_written_out() -> None:
    real, generated = _normal(0, 30, 3), 0.8 * _normal(1, 25, 3)
    result = neighbourhoods(real, generated, num_neighbors=3, num_resamples=2, seed=0)

    def distance(x: Array, y: Array) -> Array:
        return np.asarray(np.linalg.norm(x[:, None] - y[None], axis=2))

    ball = np.sort(distance(real, real), 1)[:, 3]  # the nearest is the datum itself
    generated_ball = np.sort(distance(generated, generated), 1)[:, 3]
    inside = distance(real, generated) <= ball[:, None]
    assert result.precision == inside.any(0).mean()
    assert result.recall == (distance(real, generated) <= generated_ball).any(1).mean()
    assert result.density == pytest.approx(inside.sum() / (3 * 25))
    assert result.coverage == inside.any(1).mean()
    np.testing.assert_array_equal(result.realistic, inside.any(0))
    np.testing.assert_array_equal(result.covered, inside.any(1))


def test_blocks_of_distances_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = _normal(0, 300, 2), _normal(1, 280, 2)
    whole = neighbourhoods(real, generated, num_resamples=2, seed=0)
    # scikit-learn counts in MiB: a few rows of 300 distances fit.
    monkeypatch.setattr("analysis.stats.fidelity._DISTANCE_MIB", 0.02)
    parts = neighbourhoods(real, generated, num_resamples=2, seed=0)
    assert whole.summary() == parts.summary()
    np.testing.assert_array_equal(whole.covered, parts.covered)


def test_each_figure_says_what_is_wrong() -> None:
    two = np.concatenate([_normal(0, 200, 2), _normal(1, 200, 2) + 20])
    dropped = neighbourhoods(two, _normal(2, 400, 2), seed=0)
    assert dropped.precision > 0.95
    assert dropped.recall < 0.55
    assert dropped.coverage < 0.55
    assert not dropped.covered[200:].any()
    wide = neighbourhoods(_normal(0, 400, 2), 5 * _normal(3, 400, 2), seed=0)
    assert wide.precision < 0.5
    assert wide.density < 0.3
    assert wide.recall > 0.9
    apart = neighbourhoods(_normal(0, 50, 2), _normal(1, 50, 2) + 100, seed=0)
    assert (apart.precision, apart.recall, apart.density, apart.coverage) == (0, 0, 0, 0)
    same = neighbourhoods(two, two, seed=0)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert "coverage 1.000" in str(same)
    assert json.loads(json.dumps(same.summary()))["num_neighbours"] == 5


def test_ties_that_rounding_would_break_stay_ties() -> None:
    """On a lattice the k-th distance is shared; data on the rim of a ball are in it."""
    lattice = 0.1 * np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2)
    result = neighbourhoods(lattice + 1e3, lattice + 1e3, num_neighbors=4, num_resamples=2, seed=0)
    # Of 144 data, 100 have themselves and 4 neighbours in their ball; on an edge, and in a corner, two data share the
    # fourth place, so that 44 have 6.
    assert result.density == pytest.approx((100 * 5 + 44 * 6) / 144 / 4)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.7, 0.5)])
@pytest.mark.slow
def test_errors_of_neighbourhood_figures_are_the_spread_or_a_little_more(scale: float, shift: float) -> None:
    """Over 60 samples the spread is known to 9 %: within 4 of those, the error is at least the spread (density and
    coverage), and at most 1.41 of it in theory, where half-samples have neighbours of their own; 1.6 for all four."""
    figures, errors = [], []
    for seed in range(60):
        x, y = _normal(seed, 150, 3), scale * _normal(1000 + seed, 150, 3) + shift
        result = neighbourhoods(x, y, num_resamples=20, seed=seed)
        figures.append([result.density, result.coverage, result.recall])
        errors.append(result.errors[[2, 3, 1]])
    ratio = np.mean(errors, 0) / np.std(figures, 0, ddof=1)
    assert (ratio > 1 - 4 * 0.09).all()
    assert (ratio[:2] < 2**0.5 + 4 * 0.09).all()


def test_frechet_distance_of_gaussians() -> None:
    """Diagonal: sum of (m1 - m2)^2 + (s1 - s2)^2. Else the matrix root of the product, where it has one."""
    first, second = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    loc = np.array([1.0, 0.0, -2.0])
    expected = ((first - second) ** 2).sum() + 5
    assert gaussian_frechet(loc, np.diag(first**2), 0 * loc, np.diag(second**2)) == pytest.approx(expected)
    a, b = (matrix @ matrix.T for matrix in _normal(0, 2, 4, 4))
    root = np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    zero = np.zeros(4)
    assert gaussian_frechet(zero, a, zero, b) == pytest.approx(root)
    assert gaussian_frechet(zero, b, zero, a) == pytest.approx(root)
    assert gaussian_frechet(zero, a, zero, a) == pytest.approx(0, abs=1e-8)
    # Of rank one in different directions the root of the product is zero, and no root has to be invented.
    u, v = np.eye(4)[:2]
    assert gaussian_frechet(zero, np.outer(u, u), zero, np.outer(v, v)) == pytest.approx(2)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.3, 0.5)])
def test_the_bias_of_the_frechet_distance_is_taken_off(scale: float, shift: float) -> None:
    """200 repetitions in 4 dimensions; the mean of the corrected value meets the truth within 4 SE (1 of 16,000 seeds),
    that of the raw one does not; 1.96 errors hold the truth in 95 % of them, less 4 SE of 1.5 %."""
    truth = 4 * ((scale - 1) ** 2 + shift**2)
    results = [
        frechet_distance(_normal(s, 100, 4), scale * _normal(1000 + s, 150, 4) + shift, num_resamples=30, seed=s)
        for s in range(200)
    ]
    corrected = np.array([result.corrected for result in results])
    error = corrected.std() / 200**0.5
    assert abs(corrected.mean() - truth) < 4 * error
    assert np.mean([result.value for result in results]) - truth > 4 * error
    held = [abs(result.corrected - truth) < 1.96 * result.standard_error for result in results]
    assert np.mean(held) > 0.95 - 4 * (0.95 * 0.05 / 200) ** 0.5


def test_frechet_distance_prints_what_it_took_off() -> None:
    result = frechet_distance(_normal(0, 50, 2), _normal(1, 50, 2), seed=0)
    assert "less a bias of" in str(result)
    assert result.summary()["frechet_corrected"] == result.value - result.bias
    assert result == frechet_distance(_normal(0, 50, 2), _normal(1, 50, 2), seed=0)


def test_bad_input() -> None:
    x = _normal(0, 11, 2)
    with pytest.raises(ValueError, match="5 neighbours require at least 12 rows of each sample .* got 11 and 11"):
        neighbourhoods(x, x, seed=0)
    with pytest.raises(ValueError, match="at least 4 rows of each sample required, got 11 and 3"):
        frechet_distance(x, x[:3], seed=0)
    with pytest.raises(ValueError, match="num_resamples=1"):
        frechet_distance(x, x, num_resamples=1, seed=0)
    with pytest.raises(ValueError, match=r"equal events required, got \(11, 2\) and \(11, 1\)"):
        as_rows(x, x[:, :1])
    with pytest.raises(ValueError, match="1 rows of the second sample are not finite, the first is 4"):
        as_rows(x, np.where(np.arange(11)[:, None] == 4, np.nan, x))
    assert as_rows(x[:0], x)[0].shape == (0, 2)
