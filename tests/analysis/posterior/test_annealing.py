"""Annealing, with its hamiltonian moves, is unbiased both ways, and works where importance sampling fails."""

import json
from math import log
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis import elpd, to_datatree
from analysis.posterior.annealing import (
    AnnealingConfig,
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    sigmoidal_schedule,
    simulate,
)
from analysis.posterior.bounds import Sandwich
from analysis.posterior.joint import Gaussian, guide_gaussian
from tests.truths import PPCA, Program, example, joint_of
from vae_pyro import VAE, Split, VAEConfig
from vae_pyro.core.isolation import derive_seed, isolated, seeded

SHORT = AnnealingConfig(num_chains=10, num_temperatures=40, num_leapfrog=2)


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example()


def heavy_guide(truth: PPCA, df: float = 5.0) -> Program:
    """Student t around the posterior mean: a guide that is no Gaussian."""

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        loc, covariance = truth.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.StudentT(df, loc, covariance.diagonal().sqrt()).to_event(1))

    return guide


def two_sites(truth: PPCA) -> tuple[Program, Program]:
    """The same pPCA with its latents at two sites; the guide of the second depends on the draw of the first."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        one = torch.ones((), dtype=torch.float64)
        with pyro.plate("data", size if x is None else len(x)):
            a = pyro.sample("a", dist.Normal(0 * one, one))
            b = pyro.sample("b", dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1))
            loc = torch.cat([a[..., None], b], -1) @ truth.weight.T + truth.mean
            return pyro.sample("x", dist.Normal(loc, one * truth.variance**0.5).to_event(1), obs=x)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        loc, covariance = truth.posterior(x)
        slope = covariance[1, 0] / covariance[0, 0]
        scale = (covariance[1, 1] - slope * covariance[1, 0]).sqrt()
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(loc[:, 0], covariance[0, 0].sqrt()))
            pyro.sample("b", dist.Normal((loc[:, 1] + slope * (a - loc[:, 0]))[..., None], scale).to_event(1))

    return model, guide


def assert_mean_is_one(log_ratio: Any) -> None:
    """E[exp(log_ratio)] = 1 within 4 standard errors over data: fails by chance 1 time in 16,000."""
    ratio = np.exp(log_ratio).mean(0)  # chains of a datum may share their start
    error = ratio.std(ddof=1) / len(ratio) ** 0.5
    assert error < 0.2
    assert abs(ratio.mean() - 1) < 4 * error + 1e-9


# --- what the chains see ----------------------------------------------------------------------------------------------


def test_joint_density_and_its_gradient_are_the_models(truth: PPCA) -> None:
    x = truth.sample(6, seed=0)
    with isolated(0):
        joint = joint_of(truth.programs(), x)
        guide, exact = guide_gaussian(joint)
        z = guide.shift(torch.randn(4, 6, 2, dtype=torch.float64))
        value, gradient = joint.value_and_gradient(z)
        slope = torch.func.grad(lambda z: joint.densities(z)[0].sum() + joint.densities(z)[1].sum())(z)
        log_guide = joint.log_guide(z)
    assert exact
    assert not guide.diagonal
    torch.testing.assert_close(value, truth.log_evidence(x) + guide.log_prob(z))  # the guide is exact
    torch.testing.assert_close(gradient, guide.value_and_gradient(z)[1])
    torch.testing.assert_close(slope, gradient)
    torch.testing.assert_close(log_guide, guide.log_prob(z))
    torch.testing.assert_close(joint.value(z), value)
    loc, covariance = truth.posterior(x)
    torch.testing.assert_close(guide.loc, loc)
    torch.testing.assert_close(guide.scale, covariance.diagonal().sqrt().expand(6, 2))


def test_several_sites_are_one_vector(truth: PPCA) -> None:
    x = truth.sample(5, seed=0)
    model, guide = two_sites(truth)
    with isolated(0):
        joint, single = joint_of((model, guide), x), joint_of(truth.programs(), x)
        z = torch.randn(3, 5, 2, dtype=torch.float64)
        sites = joint.sites(z)
        assert {name: value.shape for name, value in sites.items()} == {"a": (3, 5), "b": (3, 5, 1)}
        assert torch.equal(joint.flat(sites), z)
        for ours, theirs in zip(joint.value_and_gradient(z), single.value_and_gradient(z), strict=True):
            torch.testing.assert_close(ours, theirs)
        moments, exact = guide_gaussian(joint)
    assert not exact  # Gaussian given the first draw only: moments of draws stand in
    _, covariance = truth.posterior(x)
    torch.testing.assert_close(moments.scale, covariance.diagonal().sqrt().expand(5, 2), rtol=0.2, atol=0)


def test_a_guide_of_independent_sites_is_one_gaussian(truth: PPCA) -> None:
    model, _ = two_sites(truth)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x[:, 0], 2.0))
            pyro.sample("b", dist.MultivariateNormal(x[:, 1:2], 9 * torch.eye(1, dtype=torch.float64)))

    with isolated(0):
        gaussian, exact = guide_gaussian(joint_of((model, guide), truth.sample(4, seed=0)))
    assert exact
    assert not gaussian.diagonal
    assert gaussian.scale.tolist() == [[2.0, 3.0]] * 4


def test_latents_that_are_not_real_are_refused(truth: PPCA) -> None:
    def model(x: Any = None, *, size: Any = None) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.ones(1), 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(torch.ones(1), 1.0).to_event(1))

    with pytest.raises(ValueError, match="site 'rate' has support .*GreaterThanEq.* or use analysis.elpd"):
        annealed_importance_sampling((model, guide), torch.ones(3, 1))


def test_schedule_runs_from_start_to_joint() -> None:
    temperatures = sigmoidal_schedule(50)
    steps = np.diff(temperatures)
    assert (temperatures[0], temperatures[-1], len(temperatures)) == (0.0, 1.0, 51)
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, steps[::-1], atol=1e-12)
    # sigmoid(-4 + 8/50) against sigmoid(-4): the first of 50 steps.
    low, high = 1 / (1 + np.exp(4)), 1 / (1 + np.exp(-4))
    assert temperatures[1] == pytest.approx((1 / (1 + np.exp(4 - 8 / 50)) - low) / (high - low))


# --- forward ----------------------------------------------------------------------------------------------------------


def test_from_the_exact_posterior_every_weight_is_the_evidence(truth: PPCA) -> None:
    x = truth.sample(20, seed=1)
    result = annealed_importance_sampling(truth.programs(), x, config=SHORT)
    np.testing.assert_allclose(result.log_weight, np.tile(truth.log_evidence(x), (10, 1)), rtol=1e-10)
    assert result.mean_mcse < 1e-6
    assert [verdict.outcome for verdict in result.verdicts] == ["pass", "pass"]
    assert "long enough" in str(result)


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"stretch": 1.4}, "guide"),
        ({"stretch": 0.7}, "guide"),
        ({"diagonal": True}, "guide"),
        ({"diagonal": True}, "prior"),
    ],
)
def test_weights_are_unbiased(truth: PPCA, options: Any, start: Any) -> None:
    """E[w] = p(x) for any path, however short: each case fails by chance 1 time in 16,000."""
    x = truth.sample(400, seed=2)
    result = annealed_importance_sampling(truth.programs(**options), x, start=start, config=SHORT, seed=5)
    assert result.log_weight.shape == (10, 400)
    assert result.acceptance.shape == result.step_size.shape == (39, 400)
    assert_mean_is_one(result.log_weight - truth.log_evidence(x).numpy())
    assert result.acceptance.mean() == pytest.approx(0.8, abs=0.1)


def test_estimate_meets_the_truth_within_its_error(truth: PPCA) -> None:
    """|t| below the 97.5 % point of t with 9 degrees (10 chains) for 95 % of 300 data, within 4 binomial errors
    (6e-5). Log weights are not exactly normal, so one more binomial error is granted."""
    x = truth.sample(300, seed=3)
    config = AnnealingConfig(num_chains=10, num_temperatures=150)
    result = annealed_importance_sampling(truth.programs(stretch=1.4), x, config=config, seed=1)
    t = (result.log_px - truth.log_evidence(x).numpy()) / result.log_px_se
    assert abs((np.abs(t) < 2.262).mean() - 0.95) < 5 * (0.95 * 0.05 / 300) ** 0.5
    assert abs(result.mean - float(truth.log_evidence(x).mean())) < 4 * result.mean_mcse + result.bias


def test_annealing_works_where_importance_sampling_fails() -> None:
    """A guide of 0.4 times the posterior's scale has tail index 0.84: importance sampling is low by many of its own
    errors, annealing from the same guide is within 4 of its own (6e-5)."""
    truth = example(8, 4)
    x = truth.sample(60, seed=1)
    exact = truth.log_evidence(x).numpy()
    pair = truth.programs(stretch=0.4)
    sampled = elpd(to_datatree(pair, x, num_draws=1000))
    assert sampled.num_bad > 40
    assert (sampled.pointwise - exact).mean() < -5 * sampled.mcse / 60
    annealed = annealed_importance_sampling(pair, x, config=AnnealingConfig(num_temperatures=200), seed=3)
    assert abs(annealed.mean - exact.mean()) < 4 * annealed.mean_mcse + annealed.bias
    assert annealed.verdicts[0].outcome == "pass"


def test_other_guides_and_several_sites(truth: PPCA) -> None:
    """A Student t, whose density is annealed as it stands, and a hierarchical guide: unbiased (1 in 16,000 each)."""
    x = truth.sample(200, seed=4)
    exact = truth.log_evidence(x).numpy()
    model, _ = truth.programs()
    for pair in ((model, heavy_guide(truth)), two_sites(truth)):
        result = annealed_importance_sampling(pair, x, config=SHORT, seed=2)
        assert result.start == "guide"
        if pair[0] is model:
            assert_mean_is_one(result.log_weight - exact)
        else:  # the hierarchical guide is the posterior
            np.testing.assert_allclose(result.log_px, exact, rtol=1e-9)


def test_a_poor_path_is_called_poor() -> None:
    truth = example(variance=0.05)
    x = truth.sample(50, seed=5)
    config = AnnealingConfig(num_chains=4, num_temperatures=2)
    result = annealed_importance_sampling(truth.programs(), x, start="prior", config=config)
    assert result.verdicts[0].outcome == "fail"
    assert "raise num_temperatures" in str(result)


def test_masked_values_and_seeds(truth: PPCA) -> None:
    x = truth.sample(8, seed=0)
    pair, part, mask = truth.hidden(3, x)
    for hidden in (0.0, 1e6):
        split = Split(torch.where(mask, x, torch.tensor(hidden, dtype=x.dtype)), mask=mask)
        result = annealed_importance_sampling(pair, split, config=SHORT)
        np.testing.assert_allclose(result.log_px, part.log_evidence(x[:, :3]), rtol=1e-9)
    wide = truth.programs(stretch=1.4)
    runs = [annealed_importance_sampling(wide, x, config=SHORT, seed=seed).log_weight for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_blocks_of_data_are_joined_in_order(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    x, config = truth.sample(11, seed=0), AnnealingConfig(num_temperatures=5)
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 4 * 10 * 5)
    result = annealed_importance_sampling(truth.programs(), x, config=config)
    np.testing.assert_allclose(result.log_px, truth.log_evidence(x), rtol=1e-10)
    sandwich = bidirectional_monte_carlo(truth.programs(), num_data=11, config=config)
    np.testing.assert_allclose(sandwich.lower, sandwich.upper, rtol=1e-10)


def test_options_are_checked(truth: PPCA) -> None:
    x = truth.sample(3, seed=0)
    with pytest.raises(ValueError, match="num_chains must be at least 2, got 1"):
        AnnealingConfig(num_chains=1)
    with pytest.raises(ValueError, match="target_acceptance lies between 0 and 1, got 1.5"):
        AnnealingConfig(target_acceptance=1.5)
    with pytest.raises(ValueError, match="unknown start 'posterior'; choose 'guide', 'prior'"):
        annealed_importance_sampling(truth.programs(), x, start="posterior")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_data must be at least 1, got 0"):
        bidirectional_monte_carlo(truth.programs(), num_data=0)


def test_a_vae_in_single_precision() -> None:
    """The flow guide is annealed through its own density; log p(x) from it and from the prior agree within 4 errors."""
    with seeded(0):
        x = (torch.rand(6, 5) < 0.5).float()
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, encoder={"name": "mlp", "hidden": [8]}, posterior="flow"), seed=1)
    config = AnnealingConfig(num_chains=10, num_temperatures=20)
    results = [annealed_importance_sampling(vae, x, start=start, config=config) for start in ("guide", "prior")]
    error = (results[0].mean_mcse ** 2 + results[1].mean_mcse ** 2) ** 0.5
    assert 0 < error < 0.2
    assert abs(results[0].mean - results[1].mean) < 4 * error
    assert json.loads(json.dumps(results[0].summary()))["n"] == 6
    with pytest.raises(ValueError, match="likelihood 'bernoulli' requires values in"):
        annealed_importance_sampling(vae, 3 * x)


# --- backward ---------------------------------------------------------------------------------------------------------


def simulated_evidence(truth: PPCA, pair: Any, size: int, seed: int) -> Any:
    split, _ = simulate(pair, size, seed=derive_seed(seed, 0))
    return truth.log_evidence(split.values).numpy()


def test_simulated_latents_are_those_of_the_data(truth: PPCA) -> None:
    """x - W z - mu is the noise: its mean square is s2 within 4 errors."""
    split, latents = simulate(truth.programs(), 500, seed=1)
    noise = split.values - truth.mean - latents["z"] @ truth.weight.T
    assert float(noise.square().mean()) == pytest.approx(truth.variance, rel=4 * (2 / noise.numel()) ** 0.5)


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_reverse_weights_are_unbiased(truth: PPCA, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """E[1 / w] = 1 / p(x) over chains that start at the latents of the data: fails by chance 1 time in 16,000."""
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 250 * 10 * 5)  # two blocks
    pair = truth.programs(stretch=0.7)
    result = bidirectional_monte_carlo(pair, num_data=400, start=start, config=SHORT, seed=3)
    exact = simulated_evidence(truth, pair, 400, 3)
    assert_mean_is_one(exact - result.log_weight_reverse)


def test_the_sandwich_holds_the_truth_and_closes(truth: PPCA) -> None:
    """Both bounds are on their side by more than 3 errors on a short path, and meet on a long one."""
    pair, gaps = truth.programs(stretch=0.7), []
    for temperatures in (4, 250):
        config = AnnealingConfig(num_chains=10, num_temperatures=temperatures)
        result = bidirectional_monte_carlo(pair, num_data=60, start="prior", config=config, seed=4)
        exact = simulated_evidence(truth, pair, 60, 4)
        gaps.append(result.gap)
        below, above = exact - result.lower, result.upper - exact
        if temperatures == 4:
            for distance in (below, above):
                assert distance.mean() > 3 * distance.std(ddof=1) / 60**0.5
            assert result.verdicts[0].outcome == "fail"
            assert "raise num_temperatures" in str(result)
        else:
            for distance in (below, above):
                assert abs(distance.mean()) < 4 * distance.std(ddof=1) / 60**0.5 + 0.05
            assert result.verdicts[0].outcome == "pass"
        assert json.loads(json.dumps(result.summary()))["gap"] == pytest.approx(result.gap)
    assert gaps[1] < gaps[0] / 4


def test_bounds_are_log_means() -> None:
    weight = np.log([[1.0, 2.0], [3.0, 2.0]])
    sandwich = Sandwich(weight, weight)
    np.testing.assert_allclose(sandwich.lower, [log(2), log(2)])
    np.testing.assert_allclose(sandwich.upper, [-log((1 + 1 / 3) / 2), log(2)])


def test_gaussian_density_and_draws() -> None:
    """Moments of 20,000 draws within 5 errors; density as torch has it."""
    with seeded(0):
        factor = torch.randn(3, 2, 2, dtype=torch.float64).tril()
        factor.diagonal(dim1=-2, dim2=-1).abs_().add_(0.5)
        noise = torch.randn(20_000, 3, 2, dtype=torch.float64)
    gaussian = Gaussian(torch.arange(6.0, dtype=torch.float64).reshape(3, 2), factor)
    z = gaussian.shift(noise)
    theirs = torch.distributions.MultivariateNormal(gaussian.loc, scale_tril=factor)
    torch.testing.assert_close(gaussian.log_prob(z), theirs.log_prob(z))
    assert ((z.mean(0) - gaussian.loc).abs() < 5 * gaussian.scale / 20_000**0.5).all()
    torch.testing.assert_close(z.std(0), gaussian.scale, rtol=5 * (0.5 / 20_000) ** 0.5, atol=0)


@pytest.mark.slow
def test_average_meets_the_truth_at_the_stated_rate(truth: PPCA) -> None:
    """The mean over 20 data is within 1.96 of its errors in 95 % of 200 repetitions, within 4 binomial errors."""
    within = []
    for seed in range(200):
        x = truth.sample(20, seed=seed)
        result = annealed_importance_sampling(truth.programs(stretch=1.4), x, seed=seed)
        distance = result.mean - float(truth.log_evidence(x).mean())
        within.append(abs(distance) < 1.96 * result.mean_mcse)
    assert abs(np.mean(within) - 0.95) < 4 * (0.95 * 0.05 / 200) ** 0.5


def test_from_the_prior_a_guide_whose_scale_has_underflowed_is_no_obstacle(truth: PPCA) -> None:
    model, _ = truth.programs()

    def collapsed(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            scale = torch.zeros(len(x), truth.weight.shape[1], dtype=x.dtype)
            pyro.sample("z", dist.Normal(torch.zeros_like(scale), scale, validate_args=False).to_event(1))

    x = truth.sample(4, seed=3)
    config = AnnealingConfig(num_chains=50, num_temperatures=50)
    found = annealed_importance_sampling((model, collapsed), x, start="prior", config=config, seed=0)
    t = (found.log_px - truth.log_evidence(x).numpy()) / found.log_px_se
    assert np.abs(t).max() < 5
