"""Calibration accepts the exact posterior at its level, rejects each wrong one, and says in what way it is wrong."""

import json
from collections import Counter
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import gammaln
from torch import Tensor

from analysis.posterior.calibration.result import Calibration
from analysis.posterior.calibration.sbc import calibrate
from analysis.stats.ecdf_bands import ecdf_band
from analysis.stats.ranks import coverage, ranks, settled, tarp
from tests.truths import PPCA, Program, example
from vae_pyro import VAE, VAEConfig

REPETITIONS = 100


def correlated(rho: float) -> PPCA:
    """A pPCA whose posterior has correlation rho: W'W + s2 I = M is proportional to the inverse of that correlation."""
    precision = torch.tensor([[1.0, -rho], [-rho, 1.0]], dtype=torch.float64) * 4 / (1 - rho)
    weight = torch.linalg.cholesky(precision - 0.5 * torch.eye(2, dtype=torch.float64)).T
    return PPCA(torch.cat([weight, torch.zeros(1, 2, dtype=torch.float64)]), torch.zeros(3, dtype=torch.float64), 0.5)


def shifted(truth: PPCA, shift: float) -> tuple[Program, Program]:
    """The exact posterior, moved by so many of its standard deviations."""
    model, _ = truth.programs()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        loc, covariance = truth.posterior(x)
        moved = loc + shift * covariance.diagonal().sqrt()
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.MultivariateNormal(moved, scale_tril=torch.linalg.cholesky(covariance)))

    return model, guide


def repeat(pair: tuple[Program, Program], repetitions: int, **options: Any) -> list[Calibration]:
    return [calibrate(pair, seed=seed, **options) for seed in range(repetitions)]


def p_values_of(results: list[Calibration]) -> Any:
    """p-values, not adjusted, (repetition, test)."""
    return np.array([np.concatenate([c.p_values, c.p_bias, c.p_width]) for c in results])


def check_nominal_level(repetitions: int) -> None:
    results = repeat(example().programs(), repetitions)
    alarm = np.mean([c.rejected for c in results])
    assert alarm < 0.05 + 4 * sqrt(0.05 * 0.95 / repetitions)
    assert np.mean([c.statement.startswith("no departure") for c in results]) == 1 - alarm
    p = p_values_of(results)
    for level in (0.05, 0.2):
        # The tests of one calibration are dependent, so that each column stands on its own.
        assert np.abs((p <= level).mean(0) - level).max() < 4 * sqrt(level * (1 - level) / repetitions)


def test_the_exact_posterior_passes_at_the_nominal_level() -> None:
    """100 repetitions of 10 tests at two levels: 4 binomial errors, which one seed in 150 exceeds somewhere."""
    check_nominal_level(REPETITIONS)


@pytest.mark.slow
def test_the_exact_posterior_passes_at_the_nominal_level_in_many_repetitions() -> None:
    """The same with 1,000 repetitions, and errors a third as large."""
    check_nominal_level(1000)


@pytest.mark.parametrize(
    ("make", "label"),
    [
        (lambda truth: truth.programs(diagonal=True), "too narrow"),
        pytest.param(lambda truth: truth.programs(stretch=0.7), "too narrow", marks=pytest.mark.slow),
        pytest.param(lambda truth: truth.programs(stretch=1.4), "too wide", marks=pytest.mark.slow),
        (lambda truth: shifted(truth, 0.5), "biased"),
        pytest.param(lambda truth: shifted(truth, -2.0), "biased", marks=pytest.mark.slow),
    ],
    ids=["mean-field", "times 0.7", "times 1.4", "shifted", "far off"],
)
def test_wrong_posteriors_are_rejected_and_called_by_their_fault(
    make: Callable[[PPCA], tuple[Program, Program]], label: str
) -> None:
    """All of 100 are rejected: were the power 0.95, that would happen in 6 of 1,000 seeds. Exactly the right label on
    at least 95 % of latents; a false word beside it has a probability of at most 0.005 for a test."""
    results = repeat(make(example()), REPETITIONS)
    assert all(c.rejected for c in results)
    labels = Counter(name for c in results for name in c.labels)
    assert labels[label] >= 0.95 * 2 * REPETITIONS
    assert all(label in c.statement for c in results)
    for c in results[:20]:
        # The words above stand on tests of moments; the ranks and the joint coverage reject on their own.
        outcomes = {verdict.name: verdict.outcome for verdict in c.verdicts}
        assert outcomes["sbc"] != "pass"
        assert outcomes["joint_coverage"] != "pass"
        assert outcomes["guide_bias" if label == "biased" else "guide_width"] != "pass"


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.95])
def test_coverage_of_mean_field_is_the_closed_form(rho: float) -> None:
    """2 Phi(1.645 sqrt(1 - rho^2)) - 1 within 4 binomial errors; what 499 draws blur is computed, below 0.003. Nine
    comparisons: beyond in 6 of 10,000 seeds. The joint coverage is of a sum of squares weighted 1 - rho and 1 + rho."""
    truth = correlated(rho)
    _, covariance = truth.posterior(torch.zeros(1, 3, dtype=torch.float64))
    assert covariance[0, 1] / covariance[0, 0] == pytest.approx(rho)
    c = calibrate(truth.programs(diagonal=True), num_simulations=4000, num_draws=499, seed=1, quantities=())
    level, share, error = c.coverage_at(0.9)
    expected = 2 * stats.norm.cdf(stats.norm.ppf(0.95) * sqrt(1 - rho**2)) - 1
    assert level == pytest.approx(0.9)
    # E over the truth's quantile t of P(25 <= Bin(499, t) <= 474), with the truth from the wider posterior.
    z = stats.norm.ppf((np.arange(20000) + 0.5) / 20000) / sqrt(1 - rho**2)
    blurred = np.diff(stats.binom.cdf([[24], [474]], 499, stats.norm.cdf(z)), axis=0).mean()
    assert abs(blurred - expected) < 0.003
    assert (np.abs(share - blurred) < 4 * error).all()
    np.testing.assert_allclose(c.spread, 1 / sqrt(1 - rho**2), atol=4 * c.spread_se.max())
    # Mahalanobis distance under the guide is (1 + rho) a^2 + (1 - rho) b^2, over 1 - rho^2, below chi2's quantile.
    squares = np.random.default_rng(0).normal(size=(2, 400_000)) ** 2
    distance = (squares[0] * (1 + rho) + squares[1] * (1 - rho)) / (1 - rho**2)
    joint = stats.binom.cdf(449, 499, stats.chi2.cdf(distance, 2)).mean()
    grid, curve = c.highest_density_coverage
    measured = curve[np.abs(grid - 0.9).argmin()]
    assert measured == pytest.approx(joint, abs=4 * sqrt(joint * (1 - joint) / 4000))


@pytest.mark.parametrize(("stretch", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.5)])
def test_spread_and_bias_are_estimated_within_their_errors(stretch: float, shift: float) -> None:
    """100 repetitions: (estimate - truth) / error has mean 0 within 4 errors and the sd 1 (4 errors, 6e-5 each).

    The truth is what 99 Gaussian draws make of it: 1 / sd of n draws has the mean k1 and its square the mean k2. A
    variance and its own error go together, which moves the mean by skewness / (2 sqrt(n)) = 0.063, and 0.016 more for
    the root.
    """
    pair = shifted(example(), shift) if shift else example().programs(stretch=stretch)
    results = repeat(pair, REPETITIONS, quantities=())
    n, wide, off = 99, 1 / stretch**2, -shift
    k1 = sqrt((n - 1) / 2) * np.exp(gammaln((n - 2) / 2) - gammaln((n - 1) / 2))
    k2 = (n - 1) / (n - 3)
    own = (1 + 1 / (n - 1)) * (n - 2) / (n - 4)
    spread = sqrt(((wide + 1 / n + off**2) * k2 - (off * k1) ** 2) / own)
    assert spread == pytest.approx(1 / stretch, rel=0.01)
    for name, true in (("spread", spread), ("bias", off * k1)):
        z = np.array([(getattr(c, name) - true) / getattr(c, f"{name}_se") for c in results])
        allowed = 4 / sqrt(REPETITIONS) + (0.08 if name == "spread" else 0.0)
        assert np.abs(z.mean(0)).max() < allowed
        np.testing.assert_allclose(z.std(0), 1, atol=4 / sqrt(2 * REPETITIONS))


def test_the_statement_says_on_which_side_the_guide_is() -> None:
    for shift, side in ((0.5, "high"), (-0.5, "low")):
        assert f"too {side} by 0." in calibrate(shifted(example(), shift), quantities=()).statement


@pytest.mark.parametrize("skewed", [False, True])
def test_the_tests_of_bias_and_width_keep_their_level(skewed: bool) -> None:
    """10,000 samples of 500 z-scores, Gaussian or exponential, whose fourth powers have the means 3 and 9.

    Within 4 binomial errors for Gaussian ones (6e-5 for each of six). A skewed sample approaches the normal law at the
    rate skewness / sqrt(500) = 0.09, and its tails at 0.01 are off by less than half of their probability.
    """
    random = np.random.default_rng(0)
    z = random.exponential(size=(500, 10_000)) - 1 if skewed else random.normal(size=(500, 10_000))
    latents = np.full(10_000, np.nan)
    c = Calibration(
        names=("unused",),
        ranks=np.zeros((500, 1), dtype=int),
        num_latents=10_000,
        num_draws=99,
        z_score=z,
        contraction=latents,
        expected_square=np.ones(10_000),
        expected_fourth=np.full(10_000, 9.0 if skewed else 3.0),
    )
    for p in (c.p_bias, c.p_width):
        for level in (0.01, 0.05, 0.2):
            allowed = 4 * sqrt(level * (1 - level) / 10_000) + (0.5 * min(level, 0.02) if skewed else 0.0)
            assert abs((p <= level).mean() - level) < allowed


def test_a_guide_that_ignores_x_is_found_by_the_data_dependent_quantities_alone() -> None:
    """The prior as guide: ranks of latents are uniform (Modrák et al. 2023), and those of log p(x | z) not."""
    model, _ = example().programs()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))

    results = repeat((model, guide), 20)
    assert max(c.adjusted_p_values[2:4].max() for c in results) < 1e-6
    # A false word about a latent has a probability of at most 6 x 0.005; more than 4 in 20 come in 1 of 4,000 seeds.
    assert sum("each latent is calibrated on its own, but not all together" in c.statement for c in results) >= 16
    # The prior's variance is estimated from 1,000 values.
    assert max(abs(c.contraction.mean(0)).max() for c in results) < 4 * sqrt(2 / 1000)
    blind = repeat((model, guide), 40, quantities=())
    assert np.mean([c.rejected for c in blind]) < 0.05 + 4 * sqrt(0.05 * 0.95 / 40)


def test_contraction_and_z_score_are_the_closed_ones() -> None:
    truth = example()
    c = calibrate(truth.programs(), num_simulations=2000, num_draws=399, seed=0)
    _, covariance = truth.posterior(torch.zeros(1, 5, dtype=torch.float64))
    # The variance of 399 draws averages out; that of the prior's 4,000 does not: sqrt(2 / 4000) = 0.022, times 4.
    expected = 1 - covariance.diagonal().numpy()
    np.testing.assert_allclose(c.contraction.mean(0), expected, atol=0.09 * (1 - expected).max())
    assert c.z_score.shape == (2000, 2)
    np.testing.assert_allclose(c.z_score.mean(0), 0, atol=4 / sqrt(2000))
    # 399 Gaussian draws: E z^2 = (1 + 1/L) (L - 1) / (L - 3), and for a draw among the other 398 nearly the same.
    np.testing.assert_allclose(c.expected_square, (1 + 1 / 398) * 397 / 395, atol=0.01)
    np.testing.assert_allclose(c.expected_fourth, 3, atol=0.15)
    few = calibrate(truth.programs(), num_simulations=2000, num_draws=19, seed=0)
    np.testing.assert_allclose(few.expected_square, (1 + 1 / 18) * 17 / 15, atol=0.04)  # 1.196, of 38,000 values


def test_curves_and_bands_fit_together() -> None:
    c = calibrate(example().programs(stretch=0.7), seed=3)
    assert c.names == ("z[0]", "z[1]", "log_likelihood", "log_joint", "log_weight", "highest density", "tarp")
    assert c.ranks.shape == (500, 7)
    assert c.ecdf_difference.shape == (99, 7)
    assert c.num_tests == 11
    # One decision: outside the plotted band is what the adjusted p-value rejects.
    assert (c.band.outside(c.ranks) == (c.adjusted_p_values <= 0.05)).all()
    assert c.band.level == pytest.approx(1 - 0.05 / 11)
    levels, curve = c.coverage
    assert levels.shape == c.coverage_band.grid.shape
    assert (curve < c.coverage_band.lower[:, None]).any(0).all()
    for grid, joint in (c.highest_density_coverage, c.tarp_coverage):
        assert (np.diff(joint) >= 0).all()
        assert len(grid) == len(joint) == 99
    edges, counts, low, high = c.histogram()
    assert counts.shape == (20, 7)
    assert (counts.sum(0) == 500).all()
    assert edges[-1] == 100
    assert low < 500 / 20 < high
    assert counts[0, 0] > high  # too narrow: the truth is among the extremes
    assert c.histogram(10)[1].shape == (10, 7)
    with pytest.raises(ValueError, match="num_bins must divide num_draws \\+ 1 = 100, got 15; choose from 1, 2, 4, 5"):
        c.histogram(15)


def test_the_result_reads_well_and_goes_to_json() -> None:
    c = calibrate(example().programs(stretch=0.5), seed=0)
    text = str(c)
    assert "calibration of the guide: 500 simulations, 99 draws each" in text
    assert "the guide is too narrow (2 of 2 latents)" in text
    assert 2 <= text.count("\n") + 1 <= 6
    figures = json.loads(json.dumps(c.summary(), allow_nan=False))
    assert figures["rejected"] is True
    assert figures["outcome"] == "fail"
    assert figures["labels"] == {"z[0]": "too narrow", "z[1]": "too narrow"}
    names = [verdict.name for verdict in c.verdicts]
    assert names == ["sbc", "guide_width", "guide_bias", "joint_coverage", "tarp", "symmetric_kl"]
    assert [v.outcome for v in c.verdicts] == ["fail", "fail", "pass", "fail", "fail", "fail"]
    good = calibrate(example().programs(), seed=0)
    assert {v.outcome for v in good.verdicts} == {"pass"}
    assert all(v.advice == "" for v in good.verdicts)


def test_the_same_seed_gives_the_same_bits_and_blocks_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = example().programs()
    one, two, other = (calibrate(pair, seed=seed, num_simulations=100) for seed in (0, 0, 1))
    assert (one.ranks == two.ranks).all()
    assert (one.z_score == two.z_score).all()
    assert (one.ranks != other.ranks).any()
    monkeypatch.setattr("analysis.posterior.calibration.sbc._NUMBERS_AT_ONCE", 100 * 2 * 30)  # blocks of 30, 30, 30, 10
    monkeypatch.setattr("analysis.posterior.calibration.sbc.ELEMENTS_AT_ONCE", 5 * 30 * 7)  # 7 particles at once
    blocks = calibrate(pair, seed=0, num_simulations=1000)
    assert blocks.ranks.shape == (1000, 7)
    assert not blocks.rejected
    assert calibrate(example().programs(stretch=0.7), seed=0).rejected


def test_the_guide_gets_data_of_the_type_of_x_like() -> None:
    model, guide = example().programs()
    seen = set()

    def watching(x: Tensor, **given: Any) -> Any:
        seen.add(x.dtype)
        return guide(x.double(), **given)

    calibrate((model, watching), num_simulations=20, x_like=torch.zeros(1), quantities=("log_prior",))
    assert seen == {torch.float32}


def test_a_vae_is_calibrated_as_it_stands() -> None:
    config = VAEConfig(x_shape=(1, 8, 8), latent_dim=3, likelihood="bernoulli", prior="vamp")
    c = calibrate(VAE(config), num_simulations=60, num_draws=19, seed=0)
    assert c.names[:3] == ("z[0]", "z[1]", "z[2]")
    assert c.ranks.dtype.kind == "i"
    assert ((c.ranks >= 0) & (c.ranks <= 19)).all()


def test_discrete_and_several_latents() -> None:
    """A mixture with its exact posterior passes; with the labels' probabilities swapped it is rejected, and the ranks
    of the discrete latent say so."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
            z = pyro.sample("z", dist.Normal(2 * k, 1.0))
            return pyro.sample("x", dist.Normal(torch.stack([z, z], -1), 1.0).to_event(1), obs=x)

    def guide_with(flip: bool) -> Program:
        def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Any:
            mean = x.mean(-1)
            # z | k ~ N(2 k, 1), mean | z ~ N(z, 1/2), so mean | k ~ N(2 k, 3/2).
            log_odds = np.log(0.3 / 0.7) + (mean**2 - (mean - 2) ** 2) / 3
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Bernoulli(logits=-log_odds if flip else log_odds))
                return pyro.sample("z", dist.Normal((2 * k + 2 * mean) / 3, sqrt(1 / 3)))

        return guide

    for seed in range(10):
        c = calibrate((model, guide_with(False)), seed=seed)
        assert c.names[:2] == ("k", "z")
        assert np.isnan(c.bias[0])
        assert (c.p_bias[0], c.p_width[0]) == (1, 1)
        # Ties at random: without it the rank of a 0/1 latent is 0 or the number of ones.
        assert ecdf_band(500, level=0.9999, num_ranks=100).outside(c.ranks[:, 0]) == False  # noqa: E712
        json.dumps(c.summary(), allow_nan=False)
    wrong = calibrate((model, guide_with(True)), seed=0)
    assert wrong.labels[0] == "misshapen"
    assert wrong.rejected


def test_a_guide_without_width_is_too_narrow() -> None:
    truth = example()
    model, _ = truth.programs()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Delta(truth.posterior(x)[0], event_dim=1))

    c = calibrate((model, guide), seed=0)
    assert c.labels == ("too narrow", "too narrow")
    assert (c.spread == np.inf).all()
    assert "posterior inf" in str(c)
    json.dumps(c.summary(), allow_nan=False)


def test_quantities_by_name_or_function() -> None:
    def product_of_latents(latents: dict[str, Tensor], x: Tensor) -> Tensor:
        assert latents["z"].shape == (100, len(x), 2)
        return latents["z"].prod(-1)

    # Right margins, wrong dependence: only a quantity of both latents can see it.
    truth = correlated(0.8)
    model, _ = truth.programs()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        loc, covariance = truth.posterior(x)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(loc, covariance.diagonal().sqrt()).to_event(1))

    c = calibrate((model, guide), seed=0, quantities=("log_prior", product_of_latents))
    assert c.names[2:4] == ("log_prior", "product_of_latents")
    assert c.labels == ("calibrated", "calibrated")
    assert c.rejected
    assert "each latent is calibrated on its own" in c.statement


def test_named_quantities_are_the_densities_of_the_model() -> None:
    truth = example()

    def log_prior(latents: dict[str, Tensor], x: Tensor) -> Tensor:
        return dist.Normal(0.0, 1.0).log_prob(latents["z"]).sum(-1)

    def log_likelihood(latents: dict[str, Tensor], x: Tensor) -> Tensor:
        loc = latents["z"] @ truth.weight.T + truth.mean
        return dist.Normal(loc, truth.variance**0.5).log_prob(x).sum(-1)

    def log_joint(latents: dict[str, Tensor], x: Tensor) -> Tensor:
        return log_prior(latents, x) + log_likelihood(latents, x)

    def log_weight(latents: dict[str, Tensor], x: Tensor) -> Tensor:
        loc, covariance = truth.posterior(x)
        wide = dist.MultivariateNormal(loc, scale_tril=1.2 * torch.linalg.cholesky(covariance))
        return log_joint(latents, x) - wide.log_prob(latents["z"])

    named = ("log_prior", "log_likelihood", "log_joint", "log_weight")
    by_name = calibrate(truth.programs(stretch=1.2), quantities=named)
    by_hand = calibrate(truth.programs(stretch=1.2), quantities=(log_prior, log_likelihood, log_joint, log_weight))
    assert by_name.names == by_hand.names
    assert (by_name.ranks == by_hand.ranks).all()


def ignoring(known: int) -> tuple[Program, Program]:
    """``z ~ N(0, 1)``, ``x_j | z ~ N(z, s_j)`` with s of 0.5 and 1.5, and the posterior given the first ``known``."""
    scale = torch.tensor([0.5, 1.5], dtype=torch.float64)
    precision = torch.where(torch.arange(2) < known, scale**-2, 0.0)
    variance = 1 / (1 + precision.sum())

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            return pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 2), scale).to_event(1), obs=x)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(variance * (x * precision).sum(-1), variance.sqrt()))

    return model, guide


def test_ranks_of_log_weights_see_a_guide_that_ignores_a_weak_datum() -> None:
    """Every marginal is calibrated, and the other tests see it rarely; log w does in 10 of 10 repetitions (power above
    0.74 at 95 % confidence), and rejects the exact guide, whose weights are equal up to rounding, in none: with the
    level of 0.05, at most 2 of 10 with a probability of 0.99."""
    wrong = [calibrate(ignoring(1), seed=seed) for seed in range(10)]
    assert all(c.significant(c.p_values[c.names.index("log_weight")]) for c in wrong)
    others = [np.delete(c.p_values, c.names.index("log_weight")).min() * c.num_tests <= 0.05 for c in wrong]
    assert sum(others) <= 5
    assert sum(calibrate(ignoring(2), seed=seed).rejected for seed in range(10)) <= 2


def test_single_precision_and_discrete_latents_do_not_reject_an_exact_guide() -> None:
    """Rounding of the truth's log w differs from that of the draws': 1,000 simulations would see any such shift."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            return pyro.sample("x", dist.Normal(z[..., None] + 100, 1.0).to_event(1), obs=x)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Bernoulli(logits=x[:, 0] - 100.5))

    found = [calibrate((model, guide), num_simulations=1000, seed=seed, quantities=("log_weight",)) for seed in (0, 1)]
    assert min(c.p_values[c.names.index("log_weight")] for c in found) > 0.001


def test_too_few_simulations_are_inconclusive() -> None:
    """Two standard errors of the width, 2 / sqrt(2 n), exceed the 0.16 that is serious below 78 simulations."""
    for n, expected in ((40, "warn"), (300, "pass")):
        found = {v.name: v for v in calibrate(example().programs(), num_simulations=n, seed=1).verdicts}
        assert found["guide_width"].outcome == expected
        assert ("inconclusive: raise num_simulations (now 40)" in found["guide_width"].advice) == (n == 40)
        assert found["guide_bias"].outcome == "pass"
        assert found["sbc"].outcome == "pass"  # two errors of a coverage of 0.9 exceed 0.1 below 36
        assert found["tarp"].outcome == expected  # and those of one of 0.5 below 100
    few = {v.name: v for v in calibrate(example().programs(), num_simulations=20, seed=1).verdicts}
    assert few["joint_coverage"].outcome == few["sbc"].outcome == few["tarp"].outcome == "warn"
    assert "inconclusive: raise num_simulations (now 20)" in few["sbc"].advice


def test_equal_values_are_settled() -> None:
    values = np.array([[1.0, 5.0, 5.0, -np.inf], [1.0 + 1e-13, 5.0 + 1e-15, 5.1, 2.0], [1.0 - 1e-13, 7.0, 7.0, 3.0]])
    found = settled(values, np.full(4, 1e-15))
    assert found[:, 0].tolist() == [1.0] * 3
    assert found[:, 1].tolist() == [5.0, 5.0, 7.0]
    assert (found[:, 2:] == values[:, 2:]).all()


def test_ranks_break_ties_at_random() -> None:
    draws = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 2.0], [2.0, 1.0, 3.0]])
    assert ranks(np.array([1.5, 0.0, 9.0]), draws).tolist() == [2, 0, 3]
    # Two draws tie with the truth of each of 6,000 and one is below: 1, 2 and 3 equally often (4 errors of 36).
    many = ranks(np.ones(6000), np.repeat([[0.0], [1.0], [1.0]], 6000, axis=1), 0)
    counts = np.bincount(many, minlength=4)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 2000).max() < 4 * sqrt(6000 * 2 / 9)
    assert (ranks(np.ones(9), np.ones((4, 9)), 7) == ranks(np.ones(9), np.ones((4, 9)), 7)).all()


@pytest.mark.parametrize("num_draws", [19, 20])
def test_coverage_of_uniform_ranks_is_the_nominal_level(num_draws: int) -> None:
    levels, share = coverage(np.arange(num_draws + 1)[:, None], num_draws)
    np.testing.assert_allclose(share[:, 0], levels, atol=1e-12)
    assert (np.diff(levels) > 0).all()
    assert 0 < levels[0] < levels[-1] < 1


def test_tarp_of_the_truth_among_equals_is_uniform_and_sees_a_shift() -> None:
    """Gaussian vectors; P(false alarm) = 0.001. A shift of half a standard deviation is far outside."""
    random = np.random.default_rng(0)
    z, points = random.normal(size=(2, 1000, 3))
    draws = random.normal(size=(49, 1000, 3))
    band = ecdf_band(1000, level=0.999, num_ranks=50)
    assert not band.outside(tarp(z, draws, points))
    assert band.outside(tarp(z, draws * 0.6, points))
    assert band.outside(tarp(z, draws + 0.5, points + np.array([3.0, 0, 0])))
    # The closest draw: the truth at the point itself has none inside.
    assert (tarp(points, draws, points) == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 9}, "at least 20 simulations of 19 draws are required.*num_draws=9; 500 and 99 are usual"),
        ({"num_simulations": 5}, "num_simulations=5"),
        ({"quantities": ("weight",)}, "unknown quantity 'weight'; choose from log_likelihood, log_prior"),
        ({"quantities": (lambda z, x: z["z"].sum(-1) * torch.nan,)}, "<lambda> is NaN at 50000 draws"),
        ({"level": 95}, "level must lie between 0 and 1"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = calibrate(example().programs(), **options).band


def test_bad_programs_and_arrays() -> None:
    model, guide = example().programs()

    def no_x(x: Any = None, *, size: Any = None) -> Any:
        with pyro.plate("data", size):
            return pyro.sample("z", dist.Normal(0.0, 1.0))

    def other(x: Any, **_: Any) -> Any:
        with pyro.plate("data", len(x)):
            return pyro.sample("w", dist.Normal(0.0, 1.0))

    def loose(x: Any = None, *, size: Any = None) -> Any:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        size = size if x is None else len(x)
        with pyro.plate("data", size):
            return pyro.sample("x", dist.Normal(w, 1.0).expand([size, 1]).to_event(1), obs=x)

    with pytest.raises(ValueError, match="must draw latents and the site 'x'; it draws \\['z'\\]"):
        calibrate((no_x, guide))
    with pytest.raises(ValueError, match="site 'w' of the guide is not in the model"):
        calibrate((model, other))
    with pytest.raises(ValueError, match="latent site 'w' has shape \\(\\) in the model and \\(5,\\) in the guide"):
        calibrate((loose, other))
    with pytest.raises(ValueError, match="draws of shape \\(particle, 3\\) are required, got \\(5, 4\\)"):
        ranks(np.zeros(3), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="1 true values and 0 draws are NaN"):
        ranks(np.array([np.nan, 0.0]), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="ranks in 0..9 are required, got 0..10"):
        coverage(np.array([0, 10]), 9)


@pytest.mark.parametrize(
    "likelihood", ["categorical:num_classes=4", "poisson", "bernoulli", "discretized_logistic:levels=5"]
)
def test_likelihoods_that_draw_integers_are_calibrated(likelihood: str) -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood=likelihood, encoder="mlp:hidden=[4]"), seed=0)
    assert calibrate(vae, num_simulations=40, num_draws=19, seed=0).outcome in ("pass", "warn", "fail")
