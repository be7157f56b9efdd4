"""Brackets of information meet closed forms at their stated rate, on both sides; collapse and holes likewise.

Truth: ``q(z | x) = N(u(x), D)`` with ``u ~ N(m, S)`` has the Gaussian aggregate posterior ``N(m, S + D)``, for which
every figure is closed (item 12 of the truths).
"""

from typing import Any

import numpy as np
import pytest

from analysis.stats.information import (
    Bracket,
    best_floor,
    bracket,
    collapsed,
    dimension_kl,
    hole_share,
    marginal_kl,
    mutual_information,
    total_correlation,
)
from analysis.stats.mixtures import Densities, full_rank_log_density, gaussian_densities

MEAN = np.array([0.3, -0.2])
BETWEEN = np.array([[1.0, 0.5], [0.5, 0.8]])
WITHIN = np.array([0.3, 0.2])
NAMES = ("mutual_information", "marginal_kl", "total_correlation", "dimension_kl")
REPETITIONS = 200
RATE = 4 * (0.95 * 0.05 / REPETITIONS) ** 0.5  # four binomial errors of a nominal 95 %: 6e-5


def truths() -> dict[str, float]:
    total = BETWEEN + np.diag(WITHIN)
    log_det, variances = np.linalg.slogdet(total)[1], np.diag(total)
    return {
        "mutual_information": 0.5 * (log_det - np.log(WITHIN).sum()),
        "marginal_kl": 0.5 * (np.trace(total) + MEAN @ MEAN - 2 - log_det),
        "total_correlation": 0.5 * (np.log(variances).sum() - log_det),
        "dimension_kl": 0.5 * (variances + MEAN**2 - 1 - np.log(variances)).sum(),
    }


def draw(seed: int, n: int, particles: int, means: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    if means is None:
        means = random.multivariate_normal(MEAN, BETWEEN, size=n, method="cholesky")
    return means + WITHIN**0.5 * random.normal(size=(particles, n, 2)), means


def log_normal(z: np.ndarray) -> np.ndarray:
    return -0.5 * z**2 - 0.5 * np.log(2 * np.pi)


def densities(z: np.ndarray, means: np.ndarray) -> tuple[Densities, Densities]:
    return gaussian_densities(z, means, np.tile(WITHIN**0.5, (len(means), 1)))


def figures(seed: int, n: int = 300, particles: int = 2, means: np.ndarray | None = None) -> dict[str, Bracket]:
    z, means = draw(seed, n, particles, means)
    joint, marginal = densities(z, means)
    return {
        "mutual_information": mutual_information(joint),
        "marginal_kl": marginal_kl(joint, log_normal(z).sum(-1)),
        "total_correlation": total_correlation(joint, marginal),
        "dimension_kl": dimension_kl(marginal, log_normal(z)),
    }


@pytest.fixture(scope="module")
def repeated() -> list[dict[str, Bracket]]:
    return [figures(seed) for seed in range(REPETITIONS)]


@pytest.mark.parametrize("name", NAMES)
def test_the_midpoint_meets_the_truth_at_the_stated_rate(name: str, repeated: list[dict[str, Bracket]]) -> None:
    """|z| < 1.96 in 95 % of 200 repetitions within 4 binomial errors (6e-5); with the bracket's width in the error, in
    no fewer. The mean of z is within 4 / sqrt(200) of 0 (6e-5): the bias is below a quarter of the error."""
    truth = truths()[name]
    z = np.array([(r[name].estimate - truth) / r[name].midpoint_se for r in repeated])
    assert abs((np.abs(z) < 1.96).mean() - 0.95) < RATE
    assert abs(z.mean()) < 4 / REPETITIONS**0.5
    with_gap = np.array([(r[name].estimate - truth) / r[name].error for r in repeated])
    assert (np.abs(with_gap) < 1.96).mean() > 0.95 - RATE


def test_the_sides_are_biased_as_they_say_and_the_midpoint_is_not() -> None:
    """Against the same draws' average with the exact log densities, which takes the draws' own noise away: over 200
    repetitions each side misses by more than 10 standard errors on its own side, and the midpoint by less than a tenth
    of that: what is left is of second order."""
    total = BETWEEN + np.diag(WITHIN)
    misses: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    for seed in range(REPETITIONS):
        z, means = draw(seed, 300, 1)
        joint, marginal = densities(z, means)
        exact_joint = full_rank_log_density(z[0], MEAN[None], np.linalg.cholesky(total)[None])[:, 0]
        exact_marginal = log_normal((z - MEAN) / np.diag(total) ** 0.5) - 0.5 * np.log(np.diag(total))
        prior = log_normal(z)
        for name, found, exact in (
            ("mutual_information", mutual_information(joint), joint.own - exact_joint),
            ("marginal_kl", marginal_kl(joint, prior.sum(-1)), exact_joint - prior.sum(-1)),
            ("total_correlation", total_correlation(joint, marginal), exact_joint - exact_marginal.sum(-1)),
            ("dimension_kl", dimension_kl(marginal, prior), (exact_marginal - prior).sum(-1)),
        ):
            misses[name].append((found.lower - exact.mean(), found.upper - exact.mean()))
    for name, pairs in misses.items():
        low, high = np.array(pairs).T
        assert low.mean() < -10 * low.std() / REPETITIONS**0.5, name
        assert high.mean() > 10 * high.std() / REPETITIONS**0.5, name
        assert abs(low.mean() + high.mean()) / 2 < 0.1 * (high - low).mean() / 2, name


def test_the_bias_falls_as_one_over_the_number_of_data() -> None:
    """Theory as the oracle: the mean gap of the sides at 100 and 400 data differs by 4 (within 15 %)."""
    gaps = [np.mean([2 * figures(s, n, 1)["mutual_information"].half_gap for s in range(40)]) for n in (100, 400)]
    assert abs(np.log(gaps[0] / gaps[1]) / np.log(4) - 1) < 0.15


def test_the_monte_carlo_error_is_that_of_other_draws() -> None:
    """Over 200 redraws at fixed data the standard deviation equals the stated part within 4 of its errors of 5 %."""
    _, means = draw(10_000, 300, 1)
    for name in ("mutual_information", "marginal_kl"):
        again = [figures(seed, means=means)[name] for seed in range(200)]
        ratio = np.std([r.estimate for r in again]) / np.mean([r.mcse for r in again])
        assert abs(ratio - 1) < 4 * (1 / 400) ** 0.5, name


def test_average_kl_is_information_plus_marginal_kl_to_rounding() -> None:
    """ELBO surgery draw by draw: each side with the opposite one of the other."""
    z, means = draw(0, 50, 2)
    joint, marginal = densities(z, means)
    prior = log_normal(z)
    average = (joint.own - prior.sum(-1)).mean()
    information, from_prior = mutual_information(joint), marginal_kl(joint, prior.sum(-1))
    np.testing.assert_allclose(information.lower + from_prior.upper, average)
    np.testing.assert_allclose(information.upper + from_prior.lower, average)
    correlation, each = total_correlation(joint, marginal), dimension_kl(marginal, prior)
    np.testing.assert_allclose(correlation.upper + each.lower, from_prior.upper)
    np.testing.assert_allclose(correlation.lower + each.upper, from_prior.lower)


def test_information_beyond_log_n_is_not_seen_from_below() -> None:
    """Posteriors that do not overlap: the lower side is log N, and a floor makes the upper side useful again."""
    random = np.random.default_rng(0)
    means = random.normal(size=(200, 20))
    scale = 0.01
    z = means + scale * random.normal(size=(2, 200, 20))
    joint, _ = gaussian_densities(z, means, np.full_like(means, scale))
    truth = 10 * np.log((1 + scale**2) / scale**2)
    alone = mutual_information(joint)
    assert abs(alone.lower - np.log(200)) < 1e-6
    assert alone.upper > 10 * truth
    floor = best_floor([joint.outside, log_normal(z / (1 + scale**2) ** 0.5).sum(-1) - 10 * np.log(1 + scale**2)])
    with_floor = mutual_information(joint, floor)
    assert abs(with_floor.upper - truth) < 4 * with_floor.upper_se
    assert str(with_floor).startswith("between 5.3")
    assert abs(with_floor.estimate - truth) < 1.96 * with_floor.error


def test_the_floor_is_the_highest_on_average() -> None:
    low, high = np.zeros((2, 3)), np.array([[5.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    assert best_floor([low, high]) is high
    assert best_floor([high, low]) is high


def test_collapse_is_a_share_of_data() -> None:
    kl = np.full((100, 4), 0.02)
    kl[:, 0] = 0.001
    kl[0, 0] = 5.0  # one datum in a hundred may be above
    kl[:, 1] = 0.001
    kl[:2, 1] = 5.0
    kl[:, 2] = 0.0
    assert collapsed(kl).tolist() == [True, False, True, False]
    assert collapsed(kl, epsilon=0.05).tolist() == [True, False, True, True]
    assert collapsed(kl, delta=0.05).tolist() == [True, True, True, False]


@pytest.mark.parametrize("scale", [1.0, 1.5, 0.8])
def test_the_share_in_holes_meets_its_truth_at_the_stated_rate(scale: float) -> None:
    """q = N(0, 1), p = N(0, scale^2), scored by q's own density: the 1 % quantile is at |z| = 2.576, and the prior has
    2 (1 - Phi(2.576 / scale)) below it. A count of few is not normal: |z| < 3 in at least 95 % of 200 repetitions."""
    from scipy.stats import norm

    truth = 2 * norm.sf(norm.isf(0.005) / scale)
    scores = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        own, prior = random.normal(size=(1, 2000)), scale * random.normal(size=2000)
        share, error = hole_share(log_normal(own), log_normal(prior))
        scores.append((share - truth) / error)
    assert (np.abs(scores) < 3).mean() >= 0.95
    assert abs(np.mean(scores)) < 0.35


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(np.zeros(5), np.zeros(5)), (np.zeros((2, 5)), np.zeros((1, 5))), (np.zeros((2, 1)), np.zeros((2, 1)))],
)
def test_bad_shapes(lower: Any, upper: Any) -> None:
    with pytest.raises(ValueError, match="at least 2 data required, got"):
        bracket(lower, upper)


def test_a_single_draw_has_no_monte_carlo_error_and_summaries_are_plain() -> None:
    result = figures(0, particles=1)["marginal_kl"]
    assert np.isnan(result.mcse)
    assert set(result.summary()) == {"estimate", "error", "lower", "lower_se", "upper", "upper_se", "mcse"}
    assert all(isinstance(value, float) for value in result.summary().values())
    assert "±" in str(result)
