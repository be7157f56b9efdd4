"""The densities against closed forms, for hand-written pairs and for the VAE."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from tests.truths import PPCA, example
from vae_pyro import VAE, LogDensities, VAEConfig, log_densities
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.densities.moments import LogDensityMoments, WeightSums
from vae_pyro.densities.sites import draw_latents, score_latents
from vae_pyro.objectives.cubo import cubo


@pytest.fixture
def truth() -> PPCA:
    return example()


def ledger_of(
    truth: PPCA, size: int = 7, num_particles: int = 50, seed: int = 1, **options: Any
) -> tuple[Any, LogDensities]:
    x = truth.sample(size, seed=0)
    with isolated(seed):
        return x, log_densities(*truth.programs(**options), x, num_particles=num_particles)


def test_an_exact_guide_has_constant_weights_equal_to_the_evidence(truth: PPCA) -> None:
    x, densities = ledger_of(truth)
    assert densities.log_weight.shape == (50, 7)
    assert densities.latents["z"].shape == (50, 7, 2)
    torch.testing.assert_close(densities.log_weight, truth.log_evidence(x).expand(50, 7), atol=1e-10, rtol=0)


def test_each_entry_is_the_density_that_it_says(truth: PPCA) -> None:
    x, densities = ledger_of(truth, diagonal=True)
    z = densities.latents["z"]
    loc, _ = truth.posterior(x)
    normal = torch.distributions.Normal
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(densities.log_prior, normal(0 * one, one).log_prob(z).sum(-1))
    torch.testing.assert_close(densities.log_guide, normal(loc, truth.mean_field_scale).log_prob(z).sum(-1))
    likelihood = normal(z @ truth.weight.T + truth.mean, truth.variance**0.5 * one).log_prob(x).sum(-1)
    torch.testing.assert_close(densities.log_likelihood, likelihood)
    torch.testing.assert_close(densities.log_weight, densities.log_joint - densities.log_guide)
    torch.testing.assert_close(densities.sites["z"][0], densities.log_prior)


def test_the_mean_of_the_weights_is_the_stock_elbo_at_the_same_noise() -> None:
    vae = VAE(VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian")).double()
    with seeded(0):
        x = torch.randn(5, 6, dtype=torch.float64)
    parameters = list(vae.parameters())
    with isolated(3):
        densities = log_densities(vae.model, vae.guide, x, num_particles=4)
        ours = torch.autograd.grad(-densities.log_weight.mean(0).sum(), parameters, allow_unused=True)
    with isolated(3):
        stock = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
        loss = stock.differentiable_loss(vae.model, vae.guide, x)
        theirs = torch.autograd.grad(loss, parameters, allow_unused=True)
    torch.testing.assert_close(-densities.log_weight.mean(0).sum(), loss)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_subsampling_plate_does_not_scale_densities(truth: PPCA) -> None:
    model, guide = truth.programs()
    x = truth.sample(7, seed=0)

    def scaled(program: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            with poutine.scale(scale=10.0):
                return program(*args, **kwargs)

        return run

    with isolated(0):
        densities = log_densities(scaled(model), scaled(guide), x, num_particles=2)
    torch.testing.assert_close(densities.log_weight, truth.log_evidence(x).expand(2, 7))


def test_several_latent_sites_are_kept_apart(truth: PPCA) -> None:
    x = torch.zeros(4, dtype=torch.float64)

    def model(x: Any) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(a, 2.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    def guide(x: Any) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 0.5))
            pyro.sample("b", dist.Normal(a, 0.5))

    with isolated(0):
        densities = log_densities(model, guide, x, num_particles=3)
    assert set(densities.sites) == {"a", "b"}
    torch.testing.assert_close(densities.sites["a"][0] + densities.sites["b"][0], densities.log_prior)
    torch.testing.assert_close(densities.sites["a"][1] + densities.sites["b"][1], densities.log_guide)


def chain(scale_a: torch.Tensor, shift_b: torch.Tensor) -> tuple[Any, Any]:
    """b ~ N(0, 2), a | b ~ N(b / 2, 1 / 2), x | b ~ N(b, 1), and a guide that is exact at ``(1 / sqrt 2, 0)``.

    Parameters are those of each row; the second site's distribution depends on the first draw.
    """

    def model(x: Any) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x: Any) -> None:
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(2 * x / 3 + shift_b, (2 / 3) ** 0.5))
            pyro.sample("a", dist.Normal(b / 2 + 0.3 * shift_b, scale_a))

    return model, guide


@pytest.mark.parametrize("exact", [True, False])
def test_a_stopped_guide_keeps_its_value_and_its_gradient_through_the_draws(exact: bool) -> None:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    scale = torch.full((6,), 0.5**0.5 if exact else 0.4, dtype=torch.float64, requires_grad=True)
    shift = torch.full((6,), 0.0 if exact else 0.5, dtype=torch.float64, requires_grad=True)
    with isolated(1):
        plain = log_densities(*chain(scale, shift), x, num_particles=4)
    with isolated(1):
        stopped = log_densities(*chain(scale, shift), x, num_particles=4, stop_guide=True)
    torch.testing.assert_close(stopped.log_guide, plain.log_guide)
    torch.testing.assert_close(stopped.sites["a"][1] + stopped.sites["b"][1], stopped.log_guide)
    found = torch.autograd.grad(stopped.log_weight.sum(), [scale, shift])
    # By hand: the draws carry the parameters, the density has copies of them without a gradient.
    noise_b = (plain.latents["b"] - 2 * x / 3 - shift).detach()
    noise_a = ((plain.latents["a"] - plain.latents["b"] / 2 - 0.3 * shift) / scale).detach()
    b = 2 * x / 3 + shift + noise_b
    a = b / 2 + 0.3 * shift + scale * noise_a
    normal = torch.distributions.Normal
    one = torch.ones((), dtype=torch.float64)
    log_p = normal(0 * one, one).log_prob(a) + normal(a, one).log_prob(b) + normal(b, one).log_prob(x)
    still, fixed = shift.detach(), scale.detach()
    log_q = normal(2 * x / 3 + still, (2 / 3 * one) ** 0.5).log_prob(b)
    log_q = log_q + normal(b / 2 + 0.3 * still, fixed).log_prob(a)
    for one_found, by_hand in zip(found, torch.autograd.grad((log_p - log_q).sum(), [scale, shift]), strict=True):
        torch.testing.assert_close(one_found, by_hand)
        assert (by_hand.abs().max() < 1e-10) == exact


def test_stopped_draws_leave_the_score() -> None:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    scale = torch.full((6,), 0.4, dtype=torch.float64, requires_grad=True)
    shift = torch.full((6,), 0.5, dtype=torch.float64, requires_grad=True)
    with isolated(1):
        densities = log_densities(*chain(scale, shift), x, num_particles=4, stop_draws=True)
    assert not densities.log_joint.requires_grad
    assert not any(draw.requires_grad for draw in densities.latents.values())
    a, b = densities.latents["a"], densities.latents["b"]
    found = torch.autograd.grad(densities.log_guide.sum(), [scale, shift])
    off_a, off_b = a - b / 2 - 0.3 * shift, b - 2 * x / 3 - shift
    torch.testing.assert_close(found[0], (off_a**2 / scale**3 - 1 / scale).sum(0).detach())
    torch.testing.assert_close(found[1], (0.3 * off_a / scale**2 + off_b / (2 / 3)).sum(0).detach())


@pytest.mark.parametrize("posterior", ["mean_field", "full_rank", "flow"])
@pytest.mark.parametrize("prior", ["normal", "vamp:components=3"])
def test_either_part_of_the_gradient_can_be_stopped_for_every_posterior(posterior: str, prior: str) -> None:
    """What comes through the draws and what comes through the density add up to the whole."""
    if posterior == "flow" and prior != "normal":
        return
    config = VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian", posterior=posterior, prior=prior)
    vae = VAE(config).double()
    with seeded(0):
        x = torch.randn(5, 6, dtype=torch.float64)
    parameters = list(vae.guide.parameters())
    values, gradients = [], []
    for options in ({}, {"stop_guide": True}, {"stop_draws": True}):
        with isolated(3):
            densities = log_densities(vae.model, vae.guide, x, num_particles=3, **options)
        values.append(densities.log_weight.detach())
        found = torch.autograd.grad(densities.log_guide.sum(), parameters, allow_unused=True, retain_graph=True)
        gradients.append([0.0 if part is None else part for part in found])
        if prior != "normal" and options == {"stop_guide": True}:
            through = torch.autograd.grad(densities.log_prior.sum(), [*parameters, vae.model.prior.pseudo_inputs])
            assert all(part.abs().max() > 0 for part in through)  # the prior's own use of the encoder stays
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])
    for whole, path, score in zip(*gradients, strict=True):
        torch.testing.assert_close(path + score, whole)


def test_a_scale_on_the_draws_reaches_the_guide_and_not_the_model() -> None:
    vae = VAE(VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian")).double()
    with seeded(0):
        x = torch.randn(5, 6, dtype=torch.float64)
    guide, model = list(vae.guide.parameters()), list(vae.model.decoder.parameters())
    found = []
    for scale in (1.0, 3.0):
        with isolated(3):
            densities = log_densities(vae.model, vae.guide, x, num_particles=3, stop_guide=True)
        densities.scale_draw_gradients(torch.full((3, 5), scale, dtype=torch.float64))
        # A fit divides the loss by the size of the batch: what is registered on the draws has to follow.
        found.append(torch.autograd.grad(densities.log_weight.sum() / len(x), [*guide, *model]))
    for number, (plain, scaled) in enumerate(zip(*found, strict=True)):
        torch.testing.assert_close(scaled, 3 * plain if number < len(guide) else plain)


def test_gradients_that_cannot_be_stopped_are_refused(truth: PPCA) -> None:
    def discrete(x: Any, **_: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(0.5))

    x = truth.sample(4, seed=0)
    with isolated(0):
        with pytest.raises(ValueError, match="stop_guide requires reparameterised draws, and site 'z' is a Bernoulli"):
            log_densities(discrete, discrete, x, stop_guide=True)
        with pytest.raises(ValueError, match="ask for one of them"):
            log_densities(*truth.programs(), x, stop_guide=True, stop_draws=True)


def test_the_kl_weight_enters_the_weight_alone(truth: PPCA) -> None:
    _, densities = ledger_of(truth, diagonal=True)
    half = replace(densities, kl_weight=torch.tensor(0.5))
    assert half.log_weight.dtype == torch.float64
    torch.testing.assert_close(
        half.log_weight, densities.log_likelihood + (densities.log_prior - densities.log_guide) / 2
    )
    torch.testing.assert_close(half.log_joint, densities.log_joint)
    prior, guide = densities.distributions["z"]
    torch.testing.assert_close(prior.log_prob(densities.latents["z"]), densities.log_prior)
    torch.testing.assert_close(guide.log_prob(densities.latents["z"]), densities.log_guide)


def test_programs_outside_the_contract_are_named() -> None:
    x = torch.zeros(4)

    def program(*extra: str, observe: bool, outside: bool = False) -> Any:
        def run(x: Any) -> None:
            if outside:
                pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x)):
                for name in ("z", *extra):
                    pyro.sample(name, dist.Normal(0.0, 1.0))
                if observe:
                    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

        return run

    local, with_data = program(observe=False), program(observe=True)
    global_latent, guide_of_global = program(observe=True, outside=True), program(observe=False, outside=True)
    extra = program("more", observe=False)
    with isolated(0):
        with pytest.raises(ValueError, match="site 'w' has log density .*put the site in pyro.plate"):
            log_densities(global_latent, guide_of_global, x)
        with pytest.raises(ValueError, match="latent site 'w' of the model is not in the guide"):
            log_densities(global_latent, local, x)
        with pytest.raises(ValueError, match="site 'more' of the guide is not in the model"):
            log_densities(with_data, extra, x)
        with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
            log_densities(with_data, local, x, num_particles=0)


def test_moments_do_not_depend_on_the_blocks(truth: PPCA) -> None:
    _, densities = ledger_of(truth, diagonal=True, num_particles=60)
    whole = LogDensityMoments()
    whole.update(densities)
    parts = LogDensityMoments()
    for start, stop in ((0, 1), (1, 20), (20, 60)):
        parts.update(
            LogDensities(
                densities.log_likelihood[start:stop],
                densities.log_prior[start:stop],
                densities.log_guide[start:stop],
                {"z": densities.latents["z"][start:stop]},
            )
        )
    for name in ("elbo", "kl", "reconstruction"):
        for a, b in zip(whole.term(name), parts.term(name), strict=True):
            torch.testing.assert_close(a, b)
    for a, b in zip(whole.weights.log_evidence(), parts.weights.log_evidence(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(whole.weights.effective_sample_size(), parts.weights.effective_sample_size())
    weight = densities.log_weight
    torch.testing.assert_close(whole.term("elbo")[0], weight.mean(0))
    torch.testing.assert_close(whole.term("elbo")[1], weight.std(0) / 60**0.5)
    torch.testing.assert_close(whole.latent("z")[1], densities.latents["z"].var(0))
    # The delta method's error in its textbook form: sd(w) / (mean(w) sqrt(K)), with the 1/K variance.
    w = weight.exp()
    torch.testing.assert_close(whole.weights.log_evidence()[1], w.std(0, correction=0) / w.mean(0) / 60**0.5)


def test_weights_of_zero_and_huge_ranges_do_not_break_the_sum() -> None:
    log_weight = torch.tensor([[-1e5, -torch.inf], [-1e5 + 1, -torch.inf], [-2e5, 3.0]], dtype=torch.float64)
    sums = WeightSums()
    for row in range(3):
        sums.update(log_weight[row : row + 1])
    expected = torch.logsumexp(log_weight, 0) - torch.tensor(3.0, dtype=torch.float64).log()
    torch.testing.assert_close(sums.log_evidence()[0], expected)


def test_the_upper_bound_does_not_depend_on_the_blocks(truth: PPCA) -> None:
    _, densities = ledger_of(truth, diagonal=True, num_particles=200)
    sums = WeightSums()
    for start in range(0, 200, 7):
        sums.update(densities.log_weight[start : start + 7])
    torch.testing.assert_close(sums.upper_bound(), cubo(densities.log_weight))
    assert (sums.upper_bound() >= sums.log_evidence()[0]).all()


def test_draws_and_scores_apart_are_the_ledger(truth: PPCA) -> None:
    """The guide once for all particles, the model on some of them at a time."""
    x = truth.sample(7, seed=2)
    model, guide = truth.programs(diagonal=True)
    with isolated(3):
        whole = log_densities(model, guide, x, num_particles=10)
    with isolated(3):
        latents, log_guide = draw_latents(guide, x, num_particles=10)
    torch.testing.assert_close(log_guide, whole.log_guide)
    for rows in (slice(0, 4), slice(4, 10)):
        log_likelihood, log_prior = score_latents(model, x, {"z": latents["z"][rows]})
        torch.testing.assert_close(log_likelihood, whole.log_likelihood[rows])
        torch.testing.assert_close(log_prior, whole.log_prior[rows])
    with isolated(0), pytest.raises(ValueError, match="latent site 'z' of the model is not in the guide"):
        score_latents(model, x, {"other": latents["z"]})


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((3, 4)), "x is a tensor .* got ndarray; pass torch.as_tensor"),
        (torch.zeros(0, 4), r"with one datum at least, got shape \(0, 4\)"),
        (torch.zeros(()), r"with one datum at least, got shape \(\)"),
    ],
)
def test_log_densities_are_of_tensors_with_rows(x: Any, words: str) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, encoder="mlp:hidden=[4]"))
    with pytest.raises(ValueError, match=words):
        log_densities(vae.model, vae.guide, x)
