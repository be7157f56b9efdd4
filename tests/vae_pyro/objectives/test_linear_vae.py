"""Fits of a linear VAE against probabilistic PCA."""

from typing import Any

import pytest
import torch

from tests.truths import example, fixed_variance_optimum, maximum_likelihood
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.training.fitting import FitResult


def linear_vae(x: torch.Tensor, scale: Any, posterior: str = "mean_field") -> VAE:
    likelihood = {"name": "gaussian", "scale": scale}
    return VAE(
        VAEConfig(
            x_shape=(x.shape[1],), latent_dim=2, likelihood=likelihood, posterior=posterior, encoder="mlp:hidden=[]"
        )
    ).double()


def fit_linear(vae: VAE, x: torch.Tensor, *, objective: str = "elbo:num_particles=8") -> FitResult:
    """Full-batch SVI with a rate that falls to zero, so that noise averages out."""
    config = FitConfig(epochs=1500, batch_size=len(x), optimizer="adam:lr=0.02", schedule="cosine", objective=objective)
    return fit(vae, x, config=config)


def implied(vae: VAE) -> tuple[torch.Tensor, torch.Tensor, float]:
    """W, mu and s2 of the fitted decoder, in units of x."""
    last, features = vae.model.decoder.layers[-1], vae.model.likelihood.features
    weight = (features.scale[:, None] * last.weight).detach()
    mean = (features.loc + features.scale * last.bias).detach()
    with torch.no_grad():
        _, scale = vae.model.likelihood.loc_scale(vae.model.decoder(torch.zeros(1, 2, dtype=torch.float64)))
    return weight, mean, float(scale) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("posterior", ["mean_field", "full_rank"])
def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca(posterior: str) -> None:
    x = example(d=5, q=2, variance=0.3).sample(400, seed=1)
    optimum = maximum_likelihood(x, 2)
    vae = linear_vae(x, "learned", posterior)
    fit_linear(vae, x)
    weight, mean, variance = implied(vae)
    best = optimum.log_evidence(x).mean().item()
    reached = type(optimum)(weight, mean, variance).log_evidence(x).mean().item()
    # At a maximum the loss is quadratic in what the noise leaves; 0.005 nats is 0.1 % of the evidence.
    assert best - 0.005 < reached <= best + 1e-9
    assert variance == pytest.approx(optimum.variance, rel=0.03)
    torch.testing.assert_close(weight @ weight.T, optimum.weight @ optimum.weight.T, atol=0.15, rtol=0.05)
    result = evaluate(vae, x, num_draws=100)
    assert result.elbo.mean() > best - 0.03  # the guide is the posterior: no gap is left, mean-field or not


@pytest.mark.slow
def test_beta_scales_the_noise_in_the_optimum() -> None:
    """At fixed s2 a weight beta on the KL gives W with s2 replaced by beta s2 (Lucas et al. 2019)."""
    x = example(d=5, q=2, variance=0.3).sample(400, seed=1)
    vae = linear_vae(x, 0.3**0.5)
    fit_linear(vae, x, objective="beta:beta=3,num_particles=8")
    weight, _, _ = implied(vae)
    optimum = fixed_variance_optimum(x, 2, 0.3, 3.0)
    torch.testing.assert_close(weight @ weight.T, optimum.weight @ optimum.weight.T, atol=0.15, rtol=0.05)
    # The two optima differ by far more than that tolerance, so that a missing or a doubled beta would be seen.
    plain = fixed_variance_optimum(x, 2, 0.3)
    assert (plain.weight @ plain.weight.T - optimum.weight @ optimum.weight.T).abs().max() > 0.4


@pytest.mark.slow
def test_a_latent_collapses_when_its_eigenvalue_is_below_the_noise() -> None:
    x = example(d=5, q=2, variance=0.3).sample(400, seed=1)
    values = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x)).flip(0)
    between = float((values[0] * values[1]).sqrt())
    assert values[1] < between < values[0]
    vae = linear_vae(x, between**0.5)
    fit_linear(vae, x)
    assert evaluate(vae, x, num_draws=200).active_units == 1
    weight, _, _ = implied(vae)
    strength = torch.linalg.svdvals(weight)
    assert float(strength[0]) == pytest.approx(float((values[0] - between).sqrt()), rel=0.05)
    assert float(strength[1]) < 0.1
