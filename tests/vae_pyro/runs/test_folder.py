"""Files that were cut, changed, foreign or dangerous are refused by name; a write is whole or absent."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vae_pyro import VAE, FitConfig, RunError, RunFolder, VAEConfig, fit, load_data
from vae_pyro.core.files import read_json, read_tensors, write_atomically, write_json, write_tensors
from vae_pyro.runs.weights import weights


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    data = load_data("digits", binarize="static")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder="mlp:hidden=[8]", prior="vamp:components=3"))
    fit(vae, data.train, config=FitConfig(epochs=1, batch_size=700), out=tmp_path / "run", data=data)
    return RunFolder(tmp_path / "run")


def test_weights_come_back_bit_for_bit_and_shared_ones_stay_shared(run: RunFolder) -> None:
    vae = run.load_model()
    again = run.load_model()
    assert all(torch.equal(a, b) for a, b in zip(weights(vae).values(), weights(again).values(), strict=True))
    assert vae.initialized
    assert vae.model.likelihood.features is vae.guide.features
    x = torch.zeros(2, 1, 8, 8)
    assert torch.equal(vae.reconstruct(x), again.reconstruct(x))


def test_float64_models_come_back_as_float64(tmp_path: Path) -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian")).double()
    fit(vae, torch.eye(3, dtype=torch.float64).repeat(5, 1), config=FitConfig(epochs=1), out=tmp_path / "r")
    assert RunFolder(tmp_path / "r").load_model().dtype == torch.float64


@pytest.mark.parametrize("name", ["model.safetensors", "state/checkpoint.safetensors"])
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_tensors(run: RunFolder, name: str, keep: int) -> None:
    path = run.path / name
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(RunError, match=f"{path.name}' is truncated or not a safetensors file"):
        read_tensors(path, "model" if name.startswith("model") else "checkpoint")


def test_one_flipped_bit_in_the_weights(run: RunFolder) -> None:
    content = bytearray(run.model_file.read_bytes())
    content[-5] ^= 1
    run.model_file.write_bytes(bytes(content))
    with pytest.raises(RunError, match=r"model.safetensors' was changed after it was written"):
        run.load_model()


def test_foreign_and_exchanged_files(run: RunFolder, tmp_path: Path) -> None:
    own = run.model_file.read_bytes()
    save_file({"weight": torch.zeros(3)}, run.model_file)
    with pytest.raises(RunError, match="is foreign: its format is None"):
        run.load_model()
    run.model_file.write_bytes(run.checkpoint_file.read_bytes())
    with pytest.raises(RunError, match="holds a checkpoint, expected a model"):
        run.load_model()
    other = VAE(VAEConfig(x_shape=(3,), latent_dim=1))
    write_tensors(run.model_file, weights(other), "model", {"model": other.config.model_dump(mode="json")})
    with pytest.raises(RunError, match="is of another model than"):
        run.load_model()
    write_tensors(run.model_file, weights(other), "model", {"model": run.config()["model"]})
    with pytest.raises(RunError, match="does not fit the model in config.json"):
        run.load_model()
    run.model_file.write_bytes(own)
    run.load_model()


def test_a_pickle_is_refused_and_never_runs(run: RunFolder, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    for path in (run.model_file, run.checkpoint_file, run.config_file):
        keep = path.read_bytes()
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(RunError, match=path.name):
            run.load_model() if path != run.checkpoint_file else read_tensors(path, "checkpoint")
        path.write_bytes(keep)
    assert not (tmp_path / "exploded").exists()


def test_config_that_was_cut_or_changed(run: RunFolder) -> None:
    text = run.config_file.read_text()
    run.config_file.write_text(text[: len(text) // 2])
    with pytest.raises(RunError, match="config.json' is truncated or not JSON"):
        run.load_model()
    run.config_file.write_text(text.replace('"latent_dim": 2', '"latent_dim": 3'))
    with pytest.raises(RunError, match="config.json' was changed after it was written"):
        run.load_model()
    run.config_file.write_text(json.dumps({"model": {}}))
    with pytest.raises(RunError, match="was not written by vae_pyro: it has no checksum"):
        run.load_model()
    run.config_file.unlink()
    with pytest.raises(RunError, match="not a run folder"):
        run.load_model()


def test_a_later_format_is_refused(run: RunFolder) -> None:
    write_json(run.config_file, {**run.config(), "format": "vae_pyro run 2"})
    with pytest.raises(RunError, match="has format 'vae_pyro run 2', expected 'vae_pyro run 1'"):
        run.load_model()


def test_damaged_history(run: RunFolder) -> None:
    run.history_file.write_text("epoch,elbo\n1,none\n")
    with pytest.raises(RunError, match="history.csv' is damaged"):
        run.read_history()
    run.history_file.unlink()
    with pytest.raises(RunError, match="no history.csv"):
        run.read_history()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"half")
    monkeypatch.undo()
    assert read_json(path) == {"x": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_runs_on_arrays_say_that_they_need_the_data(tmp_path: Path) -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian"))
    fit(vae, torch.eye(3).repeat(5, 1), config=FitConfig(epochs=1), out=tmp_path / "r")
    with pytest.raises(RunError, match="was fitted on arrays; pass the data yourself"):
        RunFolder(tmp_path / "r").data_config()
