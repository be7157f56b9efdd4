"""Both gaps meet their closed forms on pPCA, the narrow guide is caught and the good one passes; NUTS agrees."""

import json
from dataclasses import replace
from functools import partial
from math import log
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis.posterior.annealing import AnnealingConfig
from analysis.posterior.gaps.decomposition import inference_gaps
from analysis.posterior.gaps.result import InferenceGaps
from analysis.posterior.joint import Gaussian, guide_gaussian
from analysis.posterior.local_guides import LocalConfig, optimize_locally
from analysis.posterior.nuts import nuts_moments
from tests.analysis.posterior.test_annealing import heavy_guide
from tests.truths import PPCA, Program, example, joint_of
from vae_pyro import VAE, Dataset, FitConfig, Split, VAEConfig, fit, load_data
from vae_pyro.core.isolation import isolated

QUICK: dict[str, Any] = {
    "num_draws": 400,
    "local": LocalConfig(num_steps=150),
    "annealing": AnnealingConfig(num_temperatures=40),
    "num_simulated": 0,
}


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example()


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    """Of module scope, since torchvision adds a warning filter when it is first imported."""
    return load_data("mnist", binarize="dynamic")


def shifted_guide(truth: PPCA, shift: Tensor) -> Program:
    """The best mean-field guide with its mean off by ``shift``."""

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(truth.posterior(x)[0] + shift, truth.mean_field_scale).to_event(1))

    return guide


def stretch_gap(factor: float, dim: int = 2) -> float:
    """What the ELBO loses when every standard deviation of the best Gaussian is multiplied by ``factor``."""
    return dim * ((factor**2 - 1) / 2 - log(factor))


def outcomes(result: InferenceGaps) -> dict[str, str]:
    return {verdict.name: verdict.outcome for verdict in result.verdicts}


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_an_exact_guide_has_no_gap(truth: PPCA) -> None:
    x = truth.sample(30, seed=0)
    result = inference_gaps(truth.programs(), x, **(QUICK | {"num_simulated": 10}))
    np.testing.assert_allclose(result.log_px, truth.log_evidence(x), rtol=1e-7)
    for gap in ("amortization", "approximation", "inference"):
        np.testing.assert_allclose(getattr(result, gap), 0, atol=1e-5)
    assert result.family == "full_rank"
    assert result.same_family
    assert set(outcomes(result).values()) == {"pass"}
    assert "the checks of these estimates pass" in str(result)


def test_the_mean_field_gap_is_met(truth: PPCA) -> None:
    """Approximation gap 1/2 [sum log M_jj - log|M|] for every x; fails by chance 1 time in 16,000. What the optimiser
    leaves (at most 0.01) is allowed for, and reported."""
    options = QUICK | {"num_draws": 2000, "annealing": AnnealingConfig(num_temperatures=200)}
    result = inference_gaps(truth.programs(diagonal=True), truth.sample(60, seed=1), **options)
    mean, mcse, sampling = result.average("approximation")
    assert abs(mean - truth.mean_field_gap) < 4 * mcse + 0.01
    assert sampling == pytest.approx(mcse, rel=0.5)  # the same for every x: what varies is Monte Carlo error
    assert abs(result.average("amortization")[0]) < 0.01
    assert abs(result.remaining.mean()) < 0.01
    assert result.family == "mean_field"
    assert outcomes(result)["amortization_gap"] == "pass"
    assert outcomes(result)["approximation_gap"] == "warn"  # 0.58 nats for 2 latents: correlation 0.83
    np.testing.assert_allclose(result.inference, result.approximation + result.amortization)


@pytest.mark.parametrize(("options", "stretch"), [({"diagonal": True}, 0.5), ({}, 0.5), ({"diagonal": True}, 2.0)])
def test_the_amortization_gap_of_a_stretched_guide_is_met(truth: PPCA, options: Any, stretch: float) -> None:
    """q [(c^2 - 1) / 2 - log c] within 4 errors (1 in 16,000 each) and what the optimiser leaves."""
    pair = truth.programs(**options, stretch=stretch)
    result = inference_gaps(pair, truth.sample(60, seed=2), **QUICK)
    mean, mcse, sampling = result.average("amortization")
    assert abs(mean - stretch_gap(stretch)) < 4 * mcse + 0.01
    assert sampling == pytest.approx(mcse, rel=0.5)  # the same for every x
    assert result.improved.all()


def test_the_amortization_gap_of_a_shifted_guide_is_met(truth: PPCA) -> None:
    """1/2 d' M d / s2 for a mean off by d, within 4 errors (1 in 16,000) and what the optimiser leaves."""
    shift = torch.tensor([0.3, -0.2], dtype=torch.float64)
    model, _ = truth.programs()
    result = inference_gaps((model, shifted_guide(truth, shift)), truth.sample(60, seed=3), **QUICK)
    expected = 0.5 * float(shift @ truth.precision_matrix @ shift) / truth.variance
    mean, mcse, _ = result.average("amortization")
    assert abs(mean - expected) < 4 * mcse + 0.01


# --- verdicts ---------------------------------------------------------------------------------------------------------


def caught_and_passed(models: range) -> tuple[int, int]:
    """How many narrow guides are caught and how many good ones pass, over random models, half of them mean-field."""
    caught = passed = 0
    options: dict[str, Any] = {"annealing": AnnealingConfig(num_temperatures=4), "local": LocalConfig(num_steps=60)}
    for seed in models:
        truth, diagonal = example(seed=seed), seed % 2 == 0
        for stretch in (0.5, 1.0):
            pair = truth.programs(diagonal=diagonal, stretch=stretch)
            result = inference_gaps(
                pair, truth.sample(30, seed=seed), num_draws=200, num_simulated=0, seed=seed, **options
            )
            passes = outcomes(result)["amortization_gap"] == "pass"
            caught, passed = (caught + (not passes), passed) if stretch < 1 else (caught, passed + passes)
    return caught, passed


def test_narrow_guides_are_caught_and_good_ones_pass() -> None:
    """Scale x 0.5 costs 0.32 nats a latent, above the 0.25 allowed; 6 random models of each kind, none misjudged."""
    assert caught_and_passed(range(6)) == (6, 6)


@pytest.mark.slow
def test_power_and_specificity() -> None:
    """60 more models of each kind, none misjudged: both above 0.95 at 95 % confidence (0.95^60 = 0.046)."""
    assert caught_and_passed(range(8, 68)) == (60, 60)


def test_a_very_poor_guide_fails_with_advice(truth: PPCA) -> None:
    result = inference_gaps(truth.programs(diagonal=True, stretch=0.2), truth.sample(20, seed=4), **QUICK)
    verdict = result.verdicts[0]
    assert verdict.outcome == "fail"
    assert "vae-pyro refit" in str(verdict)
    assert "[fail]" in str(result)


def test_a_short_path_is_noticed() -> None:
    """Two temperatures from a mean-field optimum in 6 dimensions: both the bias and the simulated data say so."""
    narrow = example(d=10, q=6, variance=0.01)
    short = AnnealingConfig(num_chains=4, num_temperatures=2)
    result = inference_gaps(
        narrow.programs(diagonal=True), narrow.sample(20, seed=5), annealing=short, num_draws=500, num_simulated=20
    )
    assert outcomes(result)["bdmc_gap"] == outcomes(result)["annealing_bias"] == "fail"
    assert "raise num_temperatures" in str(result)


def test_too_few_steps_are_noticed(truth: PPCA) -> None:
    pair = truth.programs(diagonal=True, stretch=0.3)
    few = {key: value for key, value in QUICK.items() if key != "local"}
    result = inference_gaps(pair, truth.sample(20, seed=5), local=LocalConfig(num_steps=2), **few)
    assert outcomes(result)["local_convergence"] == "warn"
    assert "raise num_steps" in str(result)


# --- the optimised guides ---------------------------------------------------------------------------------------------


def test_local_guides_reach_the_optimum_from_afar(truth: PPCA) -> None:
    """From 5 standard deviations off and 3 times as wide, mean-field and full-rank: KL to the optimum below 0.02."""
    x = truth.sample(20, seed=6)
    loc, covariance = truth.posterior(x)
    start = Gaussian(loc + 5 * truth.mean_field_scale, torch.diag_embed(3 * truth.mean_field_scale.expand(20, 2)), True)
    with isolated(0):
        joint = joint_of(truth.programs(), x)
        diagonal = optimize_locally(joint, start, "mean_field", LocalConfig())
        full = optimize_locally(joint, start, "full_rank", LocalConfig())
    assert diagonal.improved.all()
    assert diagonal.gaussian.diagonal
    best = Gaussian(loc, torch.diag_embed(truth.mean_field_scale.expand(20, 2)))
    exact = Gaussian(loc, torch.linalg.cholesky(covariance).expand(20, 2, 2))
    for found, expected in ((diagonal.gaussian, best), (full.gaussian, exact)):
        ours, theirs = (
            torch.distributions.MultivariateNormal(q.loc, scale_tril=q.scale_tril) for q in (found, expected)
        )
        assert torch.distributions.kl_divergence(ours, theirs).max() < 0.02
    with pytest.raises(ValueError, match="cannot start at a correlated Gaussian; choose family 'full_rank'"):
        optimize_locally(joint, exact, "mean_field", LocalConfig())


def test_what_remains_is_the_natural_gradient(truth: PPCA) -> None:
    """At c times the best scales, q (1 - c^2)^2 / 4, and half the squared slope of the mean in units of the guide; at
    the optimum nothing. Within 5 errors of 30 data's average (6e-7)."""
    x = truth.sample(30, seed=7)
    scale, shift = truth.mean_field_scale, torch.tensor([0.8, 0.0], dtype=torch.float64)
    start = Gaussian(truth.posterior(x)[0] + shift * scale, torch.diag_embed((0.7 * scale).expand(30, 2)), True)
    with isolated(0):
        joint = joint_of(truth.programs(diagonal=True), x)
        result = optimize_locally(joint, start, "mean_field", LocalConfig(num_steps=1, learning_rate=1e-9))
    # P = M / s2 in units of the guide's standard deviations.
    unit = torch.diag(0.7 * scale)
    precision = unit @ truth.precision_matrix @ unit / truth.variance
    slope = -precision @ (shift / 0.7)
    expected = 0.5 * float(slope @ slope) + 0.25 * 2 * (1 - 0.7**2) ** 2
    error = float(result.remaining_se.square().sum().sqrt()) / 30
    assert float(result.remaining.mean()) == pytest.approx(expected, abs=5 * error)
    assert error < 0.1 * expected
    with isolated(1):
        best = Gaussian(truth.posterior(x)[0], torch.diag_embed(scale.expand(30, 2)), True)
        result = optimize_locally(joint, best, "mean_field", LocalConfig(num_steps=1, learning_rate=1e-9))
    error = float(result.remaining_se.square().sum().sqrt()) / 30
    assert abs(float(result.remaining.mean())) < 5 * error


def test_the_start_is_kept_where_it_is_better(truth: PPCA) -> None:
    x = truth.sample(20, seed=8)
    with isolated(0):
        joint = joint_of(truth.programs(diagonal=True), x)
        start, _ = guide_gaussian(joint)
        result = optimize_locally(joint, start, "mean_field", LocalConfig(num_steps=3, learning_rate=50.0))
    assert not result.improved.any()
    assert torch.equal(result.gaussian.loc, start.loc)
    assert torch.equal(result.gaussian.scale_tril, start.scale_tril)


# --- NUTS -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nuts_finds_the_posterior_and_tells_guides_apart(truth: PPCA) -> None:
    """Means within 4.5 Monte Carlo errors (4 of them, 3e-5), standard deviations within 25 %; the exact guide passes,
    one of 0.45 times the width and one whose mean is off by 1.5 standard deviations fail."""
    x = truth.sample(2, seed=9)
    result = nuts_moments(truth.programs(), x, num_draws=250, num_warmup=100)
    loc, covariance = truth.posterior(x)
    assert (np.abs(result.mean - loc.numpy()) < 4.5 * result.mean_se).all()
    np.testing.assert_allclose(result.scale, covariance.diagonal().sqrt().expand(2, 2), rtol=0.25)
    np.testing.assert_allclose(result.guide_mean, loc)
    np.testing.assert_allclose(result.guide_scale, covariance.diagonal().sqrt().expand(2, 2))
    assert [verdict.outcome for verdict in result.verdicts] == ["pass", "pass"]
    assert result.effective_sample_size.min() > 50
    narrow = replace(result, guide_scale=0.45 * result.guide_scale)
    assert [verdict.outcome for verdict in narrow.verdicts] == ["pass", "fail"]
    shifted = replace(result, guide_mean=result.guide_mean + 1.5 * result.guide_scale)
    assert [verdict.outcome for verdict in shifted.verdicts] == ["fail", "pass"]
    unmixed = replace(result, r_hat=result.r_hat + 0.2)
    assert [verdict.outcome for verdict in unmixed.verdicts] == ["warn", "warn"]
    assert "raise num_draws" in str(unmixed.verdicts[0])
    assert "times the posterior's" in str(result)
    assert json.loads(json.dumps(result.summary()))["n"] == 2


def test_gaps_carry_the_moments_of_a_few_data(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "analysis.posterior.gaps.decomposition.nuts_moments", partial(nuts_moments, num_draws=100, num_warmup=30)
    )
    x = truth.sample(3, seed=9)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 2:] = False
    part = PPCA(truth.weight[:2], truth.mean[:2], truth.variance)
    _, guide = part.programs()
    pair = (truth.programs()[0], lambda x, mask=None: guide(x[:, :2]))
    result = inference_gaps(pair, Split(10 * x, mask=mask), num_nuts=1, **QUICK)
    assert result.nuts is not None
    assert result.nuts.mean.shape == (1, 2)
    assert result.nuts.shift < 1  # the mean of three masked elements far off does not reach the chain
    assert {"guide_bias", "guide_width"} <= set(outcomes(result))
    assert result.summary()["nuts"]["n"] == 1
    with pytest.raises(ValueError, match="num_draws must be at least 100, got 10"):
        nuts_moments(truth.programs(), truth.sample(3, seed=9), num_draws=10)


# --- the rest of the contract -----------------------------------------------------------------------------------------


def test_a_guide_that_is_no_gaussian_is_said_to_be_none(truth: PPCA) -> None:
    """Its gaps are still a sum that meets log p(x) - ELBO: here KL(t || posterior), by its own draws."""
    model, _ = truth.programs()
    x = truth.sample(20, seed=10)
    result = inference_gaps((model, heavy_guide(truth)), x, **QUICK)
    assert not result.same_family
    assert "split by a Gaussian family, to which the guide does not belong" in str(result.verdicts[0])
    loc, covariance = truth.posterior(x)
    guide = dist.StudentT(5.0, loc, covariance.diagonal().sqrt()).to_event(1)
    with isolated(1):
        z = guide.sample((20_000,))
    posterior = dist.MultivariateNormal(loc, covariance)
    expected = guide.log_prob(z) - posterior.log_prob(z)
    mean, mcse, _ = result.average("inference")
    own = float(expected.std(0).square().sum().sqrt()) / 20_000**0.5 / 20
    assert abs(mean - float(expected.mean())) < 4 * np.hypot(mcse, own)


def test_a_correlated_guide_can_be_compared_with_mean_field(truth: PPCA) -> None:
    """The exact posterior against the best diagonal Gaussian: the amortization gap is minus the mean-field gap."""
    x = truth.sample(30, seed=11)
    result = inference_gaps(truth.programs(), x, family="mean_field", **QUICK)
    assert not result.same_family
    mean, mcse, _ = result.average("amortization")
    assert abs(mean + truth.mean_field_gap) < 4 * mcse + 0.01


@pytest.mark.slow
def test_subsets_seeds_blocks_and_masks(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    x = truth.sample(12, seed=0)
    pair, part, mask = truth.hidden(3, x)
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 3 * 10 * 5)
    small = {"local": LocalConfig(num_steps=10), "annealing": AnnealingConfig(num_temperatures=10)}
    options = QUICK | small | {"num_draws": 50, "num_data": 7, "num_simulated": 4}
    runs = []
    for hidden in (0.0, 1e6, float("nan")):
        split = Split(torch.where(mask, x, torch.tensor(hidden, dtype=x.dtype)), mask=mask)
        runs.append(inference_gaps(pair, split, seed=3, **options))
    assert len(set(runs[0].ids.tolist())) == 7
    np.testing.assert_allclose(runs[0].log_px, part.log_evidence(x[runs[0].ids, :3]), rtol=1e-6)
    for run in runs[1:]:
        assert np.array_equal(run.annealing.acceptance, runs[0].annealing.acceptance)
        assert np.array_equal(run.sandwich.upper, runs[0].sandwich.upper)  # type: ignore[union-attr]
    assert runs[0].sandwich is not None
    assert abs(runs[0].sandwich.gap) < 1e-3
    other = inference_gaps(pair, split, seed=4, **options)
    assert not np.array_equal(other.annealing.acceptance, runs[0].annealing.acceptance)
    summary = json.loads(json.dumps(runs[0].summary()))
    assert summary["amortization_gap"] == pytest.approx(runs[0].amortization.mean())
    assert summary["n"] == 7


def test_a_single_datum_has_no_sampling_error(truth: PPCA) -> None:
    result = inference_gaps(truth.programs(stretch=0.5), truth.sample(1, seed=0), **QUICK)
    assert np.isnan(result.average("amortization")[2])
    assert result.summary()["amortization_gap_sampling_se"] is None
    assert outcomes(result)["amortization_gap"] in ("warn", "pass")
    assert result.verdicts[0].error == result.average("amortization")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_data": 0}, "num_data of at least 1 .* got 0"),
        ({"num_draws": 10}, "num_draws must be at least 25 for k-hat, got 10"),
    ],
)
def test_options_are_checked(truth: PPCA, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inference_gaps(truth.programs(), truth.sample(3, seed=0), **options)
    with pytest.raises(ValueError, match="got num_steps=0"):
        LocalConfig(num_steps=0)


@pytest.mark.slow
def test_a_fitted_vae_and_a_narrow_one() -> None:
    """Digits, single precision: the same decoder with posterior scales halved by hand is caught. 0.32 nats a latent
    beside errors of 0.02 leave no room for chance."""
    data = load_data("digits", binarize="threshold")
    config = VAEConfig(x_shape=data.x_shape, latent_dim=4, encoder={"name": "mlp", "hidden": [64]})
    vae = fit(VAE(config), data.train, config=FitConfig(epochs=20), seed=0).vae
    options = QUICK | {"num_data": 30}
    good = inference_gaps(vae, data.test, **options)
    vae.guide.posterior.normal.linear.bias.data[4:] -= log(2)
    narrow = inference_gaps(vae, data.test, **options)
    assert good.same_family
    assert outcomes(good)["amortization_gap"] == "pass"
    assert outcomes(narrow)["amortization_gap"] in ("warn", "fail")
    difference = narrow.average("amortization")[0] - good.average("amortization")[0]
    assert difference > 0.2 * 4
    # The reference and the optimum do not depend on the encoder.
    error = np.hypot(good.annealing.mean_mcse, narrow.annealing.mean_mcse)
    assert abs(good.annealing.mean - narrow.annealing.mean) < 4 * error + 0.02
    assert good.approximation.mean() > 0


@pytest.mark.slow
def test_gaps_meet_the_truth_at_the_stated_rate(truth: PPCA) -> None:
    """Within 1.96 Monte Carlo errors, and what the optimiser says it leaves, in 95 % of 200 repetitions, within 4
    binomial errors. The optimiser's remainder moves both gaps by the same amount, so their sum needs no allowance."""
    within: dict[str, list[bool]] = {"amortization": [], "approximation": [], "inference": []}
    expected = {"amortization": stretch_gap(0.5), "approximation": truth.mean_field_gap}
    expected["inference"] = sum(expected.values())
    for seed in range(200):
        x = truth.sample(20, seed=seed)
        options = QUICK | {"annealing": AnnealingConfig(num_temperatures=200), "local": LocalConfig()}
        result = inference_gaps(truth.programs(diagonal=True, stretch=0.5), x, seed=seed, **options)
        for gap, kept in within.items():
            mean, mcse, _ = result.average(gap)  # type: ignore[arg-type]
            left = 0.0 if gap == "inference" else abs(float(result.remaining.mean()))
            kept.append(abs(mean - expected[gap]) < 1.96 * mcse + left)
    for gap, kept in within.items():
        rate = float(np.mean(kept))
        assert rate > 0.95 - 4 * (0.95 * 0.05 / 200) ** 0.5, (gap, rate)
    assert np.mean(within["inference"]) < 0.95 + 4 * (0.95 * 0.05 / 200) ** 0.5


@pytest.mark.slow
@pytest.mark.mnist
def test_gaps_on_mnist(mnist: Dataset) -> None:
    """Annealing finds more than importance sampling, the sandwich closes, and both gaps are positive in every run."""
    config = VAEConfig(x_shape=mnist.x_shape, latent_dim=20, encoder={"name": "mlp", "hidden": [400]})
    vae = fit(VAE(config), mnist.train.take(slice(0, 10_000)), config=FitConfig(epochs=2, batch_size=128), seed=0).vae
    result = inference_gaps(vae, mnist.test)
    assert result.annealing.mean > result.log_px_is.mean() > result.log_px_guide.mean() > result.elbo.mean()
    assert outcomes(result)["bdmc_gap"] == "pass"
    for gap in ("amortization", "approximation"):
        mean, mcse, _ = result.average(gap)  # type: ignore[arg-type]
        assert mean > 10 * mcse
