"""Runs as verbs open them: data that have changed or do not fit are refused."""

from pathlib import Path

import numpy as np
import pytest

from vae_pyro import VAE, FitConfig, RunError, VAEConfig, fit, load_data
from vae_pyro.cli.opening import open_all, open_model, open_split, other_data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on ``x.npy``, beside it."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    data = load_data(tmp_path / "x.npy")
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]"))
    fit(vae, data.train, config=FitConfig(epochs=1, compile=False), data=data, out=tmp_path / "run", progress=False)
    return tmp_path / "run"


def test_the_run_its_model_and_its_data(run: Path) -> None:
    folder, vae = open_model(run, "cpu")
    assert folder.path == run
    assert vae.config.x_shape == (4,)
    _, _, data = open_all(run, None, "cpu")
    _, _, test = open_split(run, "test", None, "cpu")
    assert test.ids.tolist() == data.test.ids.tolist()
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        open_split(run, "dev", None, "cpu")


def test_data_that_have_changed_are_refused(run: Path) -> None:
    np.save(run.parent / "x.npy", np.load(run.parent / "x.npy") + 1)
    with pytest.raises(RunError, match="have changed"):
        open_all(run, None, "cpu")


def test_other_data_are_whole_and_of_the_shape_of_the_run(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", np.zeros((7, 4), np.float32))
    _, _, new = other_data(run, str(tmp_path / "new.npy"), None, "cpu")
    assert new.ids.tolist() == [*range(7)]
    np.save(tmp_path / "wide.npy", np.zeros((7, 5), np.float32))
    with pytest.raises(ValueError, match=r"\(datum, 4\)"):
        other_data(run, str(tmp_path / "wide.npy"), None, "cpu")
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        other_data(run, str(tmp_path / "none.npy"), None, "cpu")


def test_a_relative_source_is_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    data = load_data("x.npy")
    assert data.config.source == "x.npy"
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]"))
    fit(vae, data.train, config=FitConfig(epochs=1, compile=False), data=data, out="run", progress=False)
    monkeypatch.chdir(tmp_path / "there")
    _, _, found = open_all(Path("../run"), None, "cpu")
    assert found.facts.fingerprint == data.facts.fingerprint
    (tmp_path / "x.npy").rename(tmp_path / "there" / "x.npy")  # where the record is of a file that has moved
    assert open_all(Path("../run"), None, "cpu")[2].facts.fingerprint == data.facts.fingerprint
