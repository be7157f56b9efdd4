"""Priors and posteriors are normalised; a vamp prior is the mixture of posteriors that it says."""

import pytest
import torch

from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import isolated, seeded

PRIORS = ["normal", "mixture:components=3", "vamp:components=7", "flow:steps=2"]
POSTERIORS = ["mean_field", "full_rank", "flow:steps=2"]


def build(prior: str = "normal", posterior: str = "mean_field", latent_dim: int = 2) -> VAE:
    config = VAEConfig(
        x_shape=(3,),
        latent_dim=latent_dim,
        likelihood="gaussian",
        prior=prior,
        posterior=posterior,
        encoder="mlp:hidden=[8]",
    )
    vae = VAE(config, seed=1).double()
    with seeded(2), torch.no_grad():
        for parameter in vae.parameters():  # away from the symmetric start
            fan_in = parameter.shape[-1] if parameter.dim() else 1
            parameter.add_(0.3 * torch.randn_like(parameter) / fan_in**0.5)
    return vae


def plane(half: float, points: int) -> tuple[torch.Tensor, float]:
    line = torch.linspace(-half, half, points, dtype=torch.float64)
    return torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2


@pytest.mark.parametrize("prior", [*PRIORS[:-1], pytest.param(PRIORS[-1], marks=pytest.mark.slow)])
def test_a_prior_integrates_to_one_over_the_plane(prior: str) -> None:
    vae = build(prior)
    z, area = plane(10, 1201)
    with torch.no_grad(), isolated():
        total = vae.model.prior(vae.guide.encode_features).log_prob(z).exp().sum().item() * area
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_posterior_integrates_to_one_over_the_plane(posterior: str) -> None:
    vae = build(posterior=posterior)
    x = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    with torch.no_grad(), isolated():
        loc, scale = vae.posterior_moments(x)
        z, area = plane(1.0, 401)
        half = 9 * scale[0]
        values = vae.encode(x).log_prob(loc + z * half).exp()
    assert values.sum().item() * area * half.prod().item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_density_of_a_draw_is_that_of_the_point(posterior: str) -> None:
    """A flow keeps its last draw in a cache; the density at an equal tensor elsewhere must not depend on it."""
    vae = build(posterior=posterior, latent_dim=4)
    with seeded(0), torch.no_grad(), isolated():
        x = torch.randn(5, 3, dtype=torch.float64)
        q = vae.encode(x)
        z = q.rsample((6,))
        cached = q.log_prob(z)
        fresh = vae.encode(x).log_prob(z.clone())
    assert cached.shape == (6, 5)
    torch.testing.assert_close(cached, fresh)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_moments_agree_with_draws(posterior: str) -> None:
    vae = build(posterior=posterior)
    x = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    loc, scale = vae.posterior_moments(x, num_draws=200_000, seed=3)
    with isolated(4), torch.no_grad():
        draws = vae.encode(x).sample((50_000,))
    assert ((draws.mean(0) - loc).abs() < 5 * scale / 50_000**0.5).all()  # fails for 1 seed in 10^6
    torch.testing.assert_close(draws.std(0), scale, rtol=0.05, atol=0)


def test_full_rank_has_correlation_and_mean_field_has_not() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    full = build(posterior="full_rank").encode(x).covariance_matrix[0]
    assert abs(float(full[0, 1].detach())) > 1e-3
    assert float(torch.linalg.eigvalsh(full).min().detach()) > 0


def test_the_vamp_prior_is_the_mean_of_its_posteriors_and_starts_at_data() -> None:
    vae = build("vamp:components=4")
    with seeded(0):
        x, z = torch.randn(9, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    vae.initialize(x)
    features = vae.model.likelihood.features(x[:4])
    torch.testing.assert_close(vae.model.prior.pseudo_inputs.detach(), features)
    with torch.no_grad():
        components = torch.stack([vae.guide.encode_features(features[i]).log_prob(z) for i in range(4)])
        expected = torch.logsumexp(components, 0) - torch.tensor(4.0, dtype=torch.float64).log()
        torch.testing.assert_close(vae.model.prior(vae.guide.encode_features).log_prob(z), expected)


def test_pseudo_inputs_from_few_data_are_not_copies_of_each_other() -> None:
    vae = build("vamp:components=9")
    vae.initialize(torch.eye(3, dtype=torch.float64))
    assert len(vae.model.prior.pseudo_inputs.detach().unique(dim=0)) == 9


@pytest.mark.parametrize(
    ("prior", "posterior", "latent_dim", "message"),
    [
        ("vamp", "flow", 2, "prior 'vamp' evaluates q.*choose posterior 'mean_field' or 'full_rank'"),
        ("flow", "mean_field", 1, "prior 'flow' requires latent_dim >= 2, got 1"),
        ("normal", "flow", 1, "posterior 'flow' requires latent_dim >= 2, got 1"),
    ],
)
def test_impossible_combinations_are_refused(prior: str, posterior: str, latent_dim: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(prior, posterior, latent_dim)
