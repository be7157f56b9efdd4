"""Small models to code data with."""

from collections.abc import Callable
from typing import Any

import torch

from vae_pyro import VAE, VAEConfig
from vae_pyro.applications.compression.ans import Stack

LEVELS = "discretized_logistic:levels=17"


def tiny(likelihood: str = "bernoulli", x_shape: tuple[int, ...] = (4,), latent_dim: int = 1, seed: int = 0) -> VAE:
    """Random weights, large enough that latents and data tell of each other."""
    config = VAEConfig(
        x_shape=x_shape, latent_dim=latent_dim, likelihood=likelihood, encoder="mlp:hidden=[8],activation=tanh"
    )
    vae = VAE(config, seed=seed)
    with torch.no_grad():
        for parameter in (*vae.model.decoder.parameters(), *vae.guide.encoder.parameters()):
            parameter.mul_(3)
    return vae


def bits_of(stack: Stack, act: Callable[[], Any]) -> int:
    before = stack.bits
    act()
    return stack.bits - before
