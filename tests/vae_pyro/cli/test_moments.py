"""Moments of q(z | x) in blocks are those of all data at once."""

import numpy as np
import pytest
import torch

from vae_pyro import VAE, Split, VAEConfig
from vae_pyro.cli import moments


def test_blocks_give_the_moments_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]"), seed=0)
    x = vae.sample(10, seed=0)
    loc, scale = vae.posterior_moments(x)
    monkeypatch.setattr(moments, "_BLOCK", 4)
    found = moments.posterior_moments(vae, Split(x), 0)
    np.testing.assert_allclose(found[0], loc, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], scale, rtol=1e-5)


def test_moments_that_are_not_finite_are_refused_with_the_rows_of_the_source() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]"), seed=0)
    x = vae.sample(10, seed=0)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.fill_(1.0)
    x[[3, 7]] = 1e30
    with pytest.raises(ValueError, match=r"not finite for 2 of 10 data, rows 53, 57: they lie far outside"):
        moments.posterior_moments(vae, Split(x, ids=torch.arange(50, 60)), 0)
