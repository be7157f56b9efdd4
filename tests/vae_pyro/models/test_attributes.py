"""Attributes of priors, posteriors and structures against the distributions and programs themselves."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.models.posteriors import POSTERIORS
from vae_pyro.models.priors import PRIORS
from vae_pyro.models.structures import STRUCTURES
from vae_pyro.nn import DECODERS

DIM = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "mixture": {"components": 4},
    "vamp": {"components": 5},
    "conditional": {"num_classes": 3},
    "m2": {"num_classes": 3},
    "bottom_up": {"latent_dims": [2]},
    "ladder": {"latent_dims": [2]},
}


def chosen(name: str) -> dict[str, Any]:
    return {"name": name, **OPTIONS.get(name, {})}


@pytest.mark.parametrize("name", list(PRIORS))
def test_what_a_prior_says_of_itself(name: str) -> None:
    with seeded(0):
        prior = PRIORS.build(PRIORS.resolve(chosen(name)), DIM, (6,)).double()
        z = torch.randn(50, DIM, dtype=torch.float64)
    asked: list[Tensor] = []

    def encode(features: Tensor) -> Any:
        asked.append(features)
        return dist.Normal(features[:, :DIM], 0.5).to_event(1)

    log_prob = prior(encode).log_prob(z)
    standard = dist.Normal(torch.zeros_like(z), 1.0).to_event(1).log_prob(z)
    assert prior.standard_normal == torch.allclose(log_prob, standard)
    assert prior.made_of_posteriors == bool(asked)
    assert prior.max_width >= {"mixture": 4, "vamp": 5}.get(name, 1) * DIM


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_what_a_posterior_says_of_itself(name: str) -> None:
    with seeded(0):
        posterior = POSTERIORS.build(POSTERIORS.resolve(chosen(name)), 7, DIM).double()
        encoded = torch.randn(1, 7, dtype=torch.float64)
        z = torch.randn(20, DIM, dtype=torch.float64)
    distribution = posterior(encoded)
    with isolated(1), torch.no_grad():
        draws = distribution.sample((200_000,))[:, 0]
    covariance = torch.cov(draws.T)
    gaussian = dist.MultivariateNormal(draws.mean(0), covariance).log_prob(z)
    assert posterior.gaussian == torch.allclose(distribution.log_prob(z.unsqueeze(1))[:, 0], gaussian, atol=0.5, rtol=0)
    sd = draws.std(0)
    independent = bool(((covariance / sd / sd.unsqueeze(1) - torch.eye(DIM)).abs() < 0.01).all())  # 4 standard errors
    assert posterior.factorized == (independent and posterior.gaussian)
    if posterior.closed_moments:
        torch.testing.assert_close(distribution.mean[0], draws.mean(0), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_what_a_structure_says_of_its_programs(name: str) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", structure=chosen(name)))
    structure = STRUCTURES.build(STRUCTURES.resolve(chosen(name)))
    given = {"y": torch.tensor([0, 1, 2])} if structure.num_classes else {}
    given |= {"mask": torch.ones(3, 4, dtype=torch.bool)} if name == "not_at_random" else {}
    with isolated(0):
        trace = poutine.trace(vae.guide).get_trace(torch.zeros(3, 4), **given)
    latent = [site for site, node in trace.nodes.items() if node["type"] == "sample" and site != "data"]
    assert structure.single_latent == (latent == ["z"] and not structure.num_classes)
    assert vae.model.standard_normal == ("z2" not in latent)


def test_the_targets_of_structures() -> None:
    def targets(name: str) -> list[str]:
        structure = STRUCTURES.build(STRUCTURES.resolve(chosen(name)))
        return [structure.target(data=1_000, known=known) for known in (0, 250, 1_000)]

    assert targets("m2") == ["x", "x, and y of 250 in 1,000 data", "x and y"]
    assert targets("conditional") == ["x given y"] * 3
    assert targets("not_at_random") == ["x and the mask"] * 3
    for name in ("single", "bottom_up", "ladder"):
        assert targets(name) == ["x"] * 3


@pytest.mark.parametrize("name", list(DECODERS))
def test_the_width_of_a_decoder_is_that_of_its_widest_dense_layer(name: str) -> None:
    with seeded(0):
        choice = DECODERS.resolve({"name": name, "hidden": [40, 30] if name == "mlp" else 37})
        decoder = DECODERS.build(choice, DIM, (1, 8, 8))
    widths = [len(weight) for key, weight in decoder.named_parameters() if key.endswith("weight") and weight.dim() == 2]
    assert decoder.max_width == max(widths)
    assert decoder.max_width >= 37
