"""``vae-pyro drift``: its verdict, its files, its exit codes and refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vae_pyro.cli.calls import call, done, refused
from vae_pyro import VAE, FitConfig, VAEConfig, fit, load_data, stream

FEW = ["--permutations", "19", "--draws", "5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run fitted on half of the digits as a file, beside files of the other half, as they are and turned."""
    folder = tmp_path_factory.mktemp("drift")
    images = (load_data("digits", scale="none").train.values[:, 0] * 15).to(torch.uint8).numpy()
    images = images[np.random.default_rng(0).permutation(len(images))]
    np.save(folder / "old.npy", images[:900])
    np.save(folder / "same.npy", images[900:1100])
    np.save(folder / "turned.npy", np.rot90(images[900:1100], axes=(1, 2)).copy())
    data = load_data(folder / "old.npy", binarize="dynamic")
    config = VAEConfig(x_shape=data.x_shape, latent_dim=3, encoder={"name": "mlp", "hidden": [32]})
    fitting = FitConfig(epochs=4, compile=False, device="cpu", optimizer="adam:lr=5e-3", patience=3)
    fit(
        VAE(config), data.train, validation=data.validation, config=fitting, out=folder / "run", data=data,
        progress=False,
    )  # fmt: skip
    return folder / "run"


def test_drift_prints_writes_and_exits(run: Path, tmp_path: Path) -> None:
    fast = ["--permutations", "99", "--draws", "10"]
    same = done("drift", run, run.parent / "same.npy", "--alpha", "0.01", "--fail", "--out", tmp_path / "d.json", *fast)
    assert "no change is detected" in same
    for column in ("question", "estimate", "threshold"):
        assert column in same
    stored = json.loads((tmp_path / "d.json").read_text())
    assert stored["num_new"] == 200
    assert stored["num_reference"] == 180
    assert "sha256" in stored
    turned = done("drift", run, run.parent / "turned.npy", "--out", tmp_path / "new" / "d.html", *fast)
    assert "the data have changed" in turned
    assert "The data have changed" in (tmp_path / "new" / "d.html").read_text()
    failing = call("drift", run, run.parent / "turned.npy", "--fail", "--json", *fast)
    assert failing.exit_code == 3  # and not 1, the code of an unforeseen error
    found = json.loads(failing.output)
    assert found["drifted"]
    assert found["reference"] == "test"
    validation = done("drift", run, run.parent / "same.npy", "--split", "validation", *fast)
    assert "stopped by its validation data" in validation


def test_names_may_have_brackets(run: Path, tmp_path: Path) -> None:
    for name in ("x[bold].npy", "y[.npy"):
        path = tmp_path / name
        np.save(path, np.load(run.parent / "same.npy"))
        assert path.name in done("drift", run, path, *FEW).replace(" ", "")


def test_classes_are_left_out_where_they_are_inferred(tmp_path: Path) -> None:
    """Known classes of the run's data and none of the new data would be a change that there is not."""
    options: dict[str, Any] = {"given_labels": 200, "scale": "none"}
    data = load_data("digits", **options)
    config = VAEConfig(
        x_shape=data.x_shape, latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[16]",
        structure="m2:num_classes=10,hidden=8",
    )  # fmt: skip
    fitting = FitConfig(epochs=1, objective="m2", compile=False, device="cpu")
    fit(VAE(config), data.train, config=fitting, data=data, out=tmp_path / "run", progress=False)
    np.save(tmp_path / "new.npy", data.test.values.numpy())
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae_pyro.cli.opening.open_split", _with_classes(seen))
        done("drift", tmp_path / "run", tmp_path / "new.npy", *FEW)
        streamed = stream(tmp_path / "new.npy", scale="none")
        patch.setattr("vae_pyro.cli.opening.other_data", lambda *_: (None, None, streamed))
        done("drift", tmp_path / "run", tmp_path / "new.npy", *FEW)
    assert seen == [True, True]


def _with_classes(seen: list[Any]) -> Any:
    from vae_pyro.cli.opening import open_split

    def opened(*arguments: Any) -> Any:
        folder, vae, split = open_split(*arguments)
        seen.append(split.labels is not None)
        return folder, vae, replace(split, y=split.labels)

    return opened


def test_data_that_make_no_test_are_refused(run: Path, tmp_path: Path) -> None:
    for arguments, text in (
        ((run.parent / "same.npy", "--split", "train"), "has seen the training data"),
        ((run.parent / "old.npy",), "is what the run was fitted on"),
        ((run.parent / "same.npy", "--out", tmp_path / "d.txt"), "the ending chooses the format, .html or .json"),
        ((run.parent / "none.npy",), "none.npy"),
        ((run.parent / "same.npy", "--level", "0.01"), "--level is now --alpha"),
        ((run.parent / "same.npy", "--rows=100"), "--rows is now --max-data"),
    ):
        assert text in refused("drift", run, *arguments)
    assert not list(tmp_path.iterdir())
