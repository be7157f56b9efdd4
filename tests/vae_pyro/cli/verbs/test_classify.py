"""``vae-pyro classify``: classes of a run's data and of others, their scores, and what is written."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tests.vae_pyro.cli.calls import done, refused
from vae_pyro import VAE, Classification, FitConfig, VAEConfig, classify, fit, load_data, stream
from vae_pyro.data.dataset import as_split
from vae_pyro.data.memory.sparse import SparseSplit


def test_classes_are_written_and_scored(tmp_path: Path) -> None:
    data = load_data("digits", given_labels=50)
    vae = VAE(
        VAEConfig(
            x_shape=data.x_shape,
            latent_dim=2,
            likelihood="gaussian",
            encoder="mlp:hidden=[16]",
            structure="m2:num_classes=10,hidden=8",
        )
    )
    config = FitConfig(epochs=1, objective="m2", compile=False)
    fit(vae, data.train, config=config, data=data, out=tmp_path / "run", progress=False)
    options = ["classify", tmp_path / "run", "--draws", "2", "--limit"]
    shown = done(*options, "60", "--out", tmp_path / "classes.csv")
    assert shown.count("log score") == 2
    assert len(list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))) == 60
    alone = done(*options, "1", "--out", tmp_path / "one.csv")
    assert "require at least 2 data, got 1" in alone
    assert "log score" not in alone
    assert (tmp_path / "one.csv").exists()
    assert "the ending chooses the format, .csv or .npz" in refused(*options, "60", "--out", tmp_path / "classes.txt")
    assert not (tmp_path / "classes.txt").exists()


def test_classes_of_other_data_of_a_conditional_run_are_found(tmp_path: Path) -> None:
    """Without classes in the file, and with some of them by other numbers: neither is asked for."""
    zarr = pytest.importorskip("zarr")
    data = load_data("digits", given_labels="all")
    structure = "conditional:num_classes=10"
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, likelihood="gaussian", structure=structure))
    run = tmp_path / "run"
    fit(vae, data.train, config=FitConfig(epochs=1, compile=False), data=data, out=run, progress=False)
    x = data.test.values.numpy()
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "named.npz", x=x, y=np.array(["4", "7"] * len(x))[: len(x)])
    for name in ("x.npy", "named.npz"):
        out = tmp_path / f"{name}.npz"
        shown = done("classify", run, tmp_path / name, "--draws", "2", "--limit", "30", "--out", out)
        assert ("log score" in shown) == (name == "named.npz")
        with np.load(out) as made:
            assert made["log_joint"].shape == (30, 10)
            assert ("labels" in made) == (name == "named.npz")
            if "labels" in made:
                assert made["labels"].tolist() == [4, 7] * 15
    values = x[:30] / np.float32(16)
    pieces = zarr.create_array(store=str(tmp_path / "x.zarr"), shape=values.shape, chunks=(9, 1, 8, 8), dtype="f4")
    pieces[:] = values
    done("classify", run, tmp_path / "x.zarr", "--draws", "2", "--out", tmp_path / "z.csv")
    # The same bytes as the run's own: they are read on its scale, 16 levels and not 255.
    with np.load(tmp_path / "x.npy.npz") as first:
        own = classify(vae, data.test.take(slice(0, 30)), num_draws=2)
        np.testing.assert_allclose(first["log_joint"], own.log_joint, rtol=1e-5)


def test_scores_come_before_the_file_and_sparse_data_stay_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, encoder="mlp:hidden=[8]", structure="m2:num_classes=3"))
    rows = (np.random.default_rng(0).random((30, 4)) < 0.3).astype(np.float32)
    split = replace(as_split(sparse.csr_matrix(rows)), labels=torch.arange(30) % 3)
    assert isinstance(split, SparseSplit)
    seen: list[Any] = []

    def spy(vae: VAE, x: Any, **options: Any) -> Classification:
        seen.append(x)
        return classify(vae, x, **options)

    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("no scores")

    monkeypatch.setattr("vae_pyro.applications.classification.classify", spy)
    opened = "vae_pyro.cli.options.DataOptions.open_data"
    monkeypatch.setattr(opened, lambda *_, **__: (None, vae, split))
    call = ("classify", "run", "--draws", "2", "--out")
    for more in ([], ["--limit", "20"], ["--limit", "50"]):
        done(*call, tmp_path / "a.csv", *more)
    assert [len(one) for one in seen] == [30, 20, 30]
    assert all(isinstance(one, SparseSplit) for one in seen)
    np.save(tmp_path / "x.npy", rows)
    whole = stream(tmp_path / "x.npy")
    monkeypatch.setattr(opened, lambda *_, **__: (None, vae, whole))
    for more in ([], ["--limit", "20"]):
        done(*call, tmp_path / "a.csv", *more)
    np.testing.assert_array_equal(seen[-2].values.numpy(), rows)
    assert len(seen[-1]) == 20
    monkeypatch.setattr(opened, lambda *_, **__: (None, vae, split))
    monkeypatch.setattr("analysis.class_scores", fails)
    assert "no scores" in refused(*call, tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()
