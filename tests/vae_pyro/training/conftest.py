"""A short run on digits."""

from pathlib import Path

import pytest

from tests.vae_pyro.training.fits import SMALL, short
from vae_pyro import VAE, Dataset, VAEConfig, fit, load_data


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", binarize="dynamic")


@pytest.fixture(scope="module")
def old(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[VAE, Path]:
    """A short run with pseudo-inputs and a learned prior, so that there are buffers and parameters of all kinds."""
    out = tmp_path_factory.mktemp("runs") / "old"
    config = VAEConfig(x_shape=data.x_shape, latent_dim=3, encoder=SMALL, prior="vamp:components=5")
    fitted = fit(VAE(config, seed=5), data.train, config=short(), seed=5, out=out, data=data, progress=False)
    return fitted.vae, out
