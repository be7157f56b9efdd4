"""Runs that several verbs are tried on."""

from pathlib import Path

import pytest

from tests.vae_pyro.cli.calls import FAST, done


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two latents on binarized digits."""
    out = tmp_path_factory.mktemp("cli") / "run"
    shown = done("fit", "digits", "--binarize", "dynamic", "--latent-dim", "2", *FAST, "--out", out)
    assert "1,294 train, 144 validation, 359 test" in shown
    assert "validation ELBO" in shown
    return out
