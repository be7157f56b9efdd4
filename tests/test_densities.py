"""The ledger against closed forms, for hand-written pairs and for the VAE."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from tests.truths import PPCA, example
from vae_pyro import VAE, Ledger, LedgerMoments, VAEConfig, log_densities
from vae_pyro.isolation import isolated, seeded


@pytest.fixture
def truth() -> PPCA:
    return example()


def ledger_of(truth: PPCA, size: int = 7, num_particles: int = 50, seed: int = 1, **options: Any) -> tuple[Any, Ledger]:
    x = truth.sample(size, seed=0)
    with isolated(seed):
        return x, log_densities(*truth.programs(**options), x, num_particles=num_particles)


def test_an_exact_guide_has_constant_weights_equal_to_the_evidence(truth: PPCA) -> None:
    x, ledger = ledger_of(truth)
    assert ledger.log_weight.shape == (50, 7)
    assert ledger.latents["z"].shape == (50, 7, 2)
    torch.testing.assert_close(ledger.log_weight, truth.log_evidence(x).expand(50, 7), atol=1e-10, rtol=0)


def test_each_entry_is_the_density_that_it_says(truth: PPCA) -> None:
    x, ledger = ledger_of(truth, diagonal=True)
    z = ledger.latents["z"]
    loc, _ = truth.posterior(x)
    normal = torch.distributions.Normal
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(ledger.log_prior, normal(0 * one, one).log_prob(z).sum(-1))
    torch.testing.assert_close(ledger.log_guide, normal(loc, truth.mean_field_scale).log_prob(z).sum(-1))
    likelihood = normal(z @ truth.weight.T + truth.mean, truth.variance**0.5 * one).log_prob(x).sum(-1)
    torch.testing.assert_close(ledger.log_likelihood, likelihood)
    torch.testing.assert_close(ledger.log_weight, ledger.log_joint - ledger.log_guide)
    torch.testing.assert_close(ledger.sites["z"][0], ledger.log_prior)


def test_the_mean_of_the_weights_is_the_stock_elbo_at_the_same_noise() -> None:
    vae = VAE(VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian")).double()
    with seeded(0):
        x = torch.randn(5, 6, dtype=torch.float64)
    parameters = list(vae.parameters())
    with isolated(3):
        ledger = log_densities(vae.model, vae.guide, x, num_particles=4)
        ours = torch.autograd.grad(-ledger.log_weight.mean(0).sum(), parameters, allow_unused=True)
    with isolated(3):
        stock = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
        loss = stock.differentiable_loss(vae.model, vae.guide, x)
        theirs = torch.autograd.grad(loss, parameters, allow_unused=True)
    torch.testing.assert_close(-ledger.log_weight.mean(0).sum(), loss)
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
        ledger = log_densities(scaled(model), scaled(guide), x, num_particles=2)
    torch.testing.assert_close(ledger.log_weight, truth.log_evidence(x).expand(2, 7))


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
        ledger = log_densities(model, guide, x, num_particles=3)
    assert set(ledger.sites) == {"a", "b"}
    torch.testing.assert_close(ledger.sites["a"][0] + ledger.sites["b"][0], ledger.log_prior)
    torch.testing.assert_close(ledger.sites["a"][1] + ledger.sites["b"][1], ledger.log_guide)


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
    _, ledger = ledger_of(truth, diagonal=True, num_particles=60)
    whole = LedgerMoments(7)
    whole.update(ledger)
    parts = LedgerMoments(7)
    for start, stop in ((0, 1), (1, 20), (20, 60)):
        parts.update(
            Ledger(
                ledger.log_likelihood[start:stop],
                ledger.log_prior[start:stop],
                ledger.log_guide[start:stop],
                {"z": ledger.latents["z"][start:stop]},
            )
        )
    for name in ("elbo", "kl", "reconstruction"):
        for a, b in zip(whole.term(name), parts.term(name), strict=True):
            torch.testing.assert_close(a, b)
    for a, b in zip(whole.log_evidence(), parts.log_evidence(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(whole.effective_sample_size(), parts.effective_sample_size())
    weight = ledger.log_weight
    torch.testing.assert_close(whole.term("elbo")[0], weight.mean(0))
    torch.testing.assert_close(whole.term("elbo")[1], weight.std(0) / 60**0.5)
    torch.testing.assert_close(whole.latent("z")[1], ledger.latents["z"].var(0))
    # The delta method's error in its textbook form: sd(w) / (mean(w) sqrt(K)), with the 1/K variance.
    w = weight.exp()
    torch.testing.assert_close(whole.log_evidence()[1], w.std(0, correction=0) / w.mean(0) / 60**0.5)


def test_weights_of_zero_and_huge_ranges_do_not_break_the_sum() -> None:
    log_weight = torch.tensor([[-1e5, -torch.inf], [-1e5 + 1, -torch.inf], [-2e5, 3.0]], dtype=torch.float64)
    moments = LedgerMoments(2)
    zero = torch.zeros_like(log_weight)
    for row in range(3):
        moments.update(Ledger(log_weight[row : row + 1], zero[row : row + 1], zero[row : row + 1]))
    expected = torch.logsumexp(log_weight, 0) - torch.tensor(3.0, dtype=torch.float64).log()
    torch.testing.assert_close(moments.log_evidence()[0], expected)
