"""A run on digits, and an archive of their test data."""

from pathlib import Path

import pytest

from tests.vae_pyro.applications.compression.models import LEVELS
from vae_pyro import VAE, Dataset, FitConfig, VAEConfig, fit, load_data
from vae_pyro.applications.compression.archive import Archive
from vae_pyro.applications.compression.codec import compress
from vae_pyro.runs.folder import RunFolder


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_data("digits", scale="none")


@pytest.fixture(scope="session")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few epochs."""
    out = tmp_path_factory.mktemp("runs") / "run"
    vae = VAE(VAEConfig(x_shape=digits.x_shape, latent_dim=6, likelihood=LEVELS, encoder="mlp:hidden=[32]"))
    fit(vae, digits.train, config=FitConfig(epochs=5, compile=False), seed=3, out=out, data=digits)
    return out


@pytest.fixture(scope="session")
def fitted(run: Path) -> VAE:
    return RunFolder(run).load_model()


@pytest.fixture(scope="session")
def archive(fitted: VAE, digits: Dataset) -> Archive:
    return compress(fitted, digits.test, seed=1)


@pytest.fixture(scope="session")
def file(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "digits.vpz"
    archive.write(path)
    return path
