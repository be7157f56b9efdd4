"""``vae-pyro impute``: what it writes, and what it refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.vae_pyro.cli.calls import done, refused
from vae_pyro import VAE, DataConfig, FitConfig, RunFolder, VAEConfig, fit, impute, infer
from vae_pyro.cli.verbs.impute import write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table of 80 rows with empty cells, beside its file ``table.csv``."""
    folder = tmp_path_factory.mktemp("impute")
    random = np.random.default_rng(0)
    z = random.normal(size=(80, 1))
    frame = pd.DataFrame(z + 0.3 * random.normal(size=(80, 3)), columns=["height", "weight", "age"])
    frame = frame.mask(random.random(frame.shape) < 0.2)
    frame.to_csv(folder / "table.csv", index=False)
    data = DataConfig(source=str(folder / "table.csv")).load()
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[8]", encode_mask=True))
    fit(vae, data.train, config=FitConfig(epochs=3, compile=False), data=data, out=folder / "run", progress=False)
    return folder / "run"


def test_columns_are_the_models_by_name(run: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(run.parent / "table.csv")
    frame[["age", "height", "weight"]].assign(other=1.0).to_csv(tmp_path / "turned.csv", index=False)
    for name, source in (("a", run.parent / "table.csv"), ("b", tmp_path / "turned.csv")):
        done("impute", run, source, "--out", tmp_path / f"{name}.csv", "--draws", 50)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    frame.rename(columns={"age": "years"}).to_csv(tmp_path / "named.csv", index=False)
    assert "lacks the column 'age'" in refused("impute", run, tmp_path / "named.csv", "--out", tmp_path / "c.csv")
    assert not (tmp_path / "c.csv").exists()


def test_rows_of_the_run_have_their_ids(run: Path, tmp_path: Path) -> None:
    done("impute", run, "--out", tmp_path / "own.csv", "--draws", 20)
    own, table = pd.read_csv(tmp_path / "own.csv"), pd.read_csv(run.parent / "table.csv")
    whole = table.iloc[own["id"]].notna().all(axis=1).to_numpy()
    assert whole.any()
    np.testing.assert_allclose(own[["height", "weight", "age"]][whole], table.iloc[own["id"]][whole], rtol=1e-5)
    assert "--level lies between 0 and 1, got 7" in refused("impute", run, "--out", tmp_path / "l.csv", "--level", 7)


def test_npz_has_everything(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "imputed.npz"
    options = ("--num-imputations", 3, "--draws", 50, "--seed", 4)
    assert "data with missing elements" in done("impute", run, run.parent / "table.csv", "--out", out, *options)
    frame = pd.read_csv(run.parent / "table.csv")
    with np.load(out) as stored:  # without pickle
        assert stored["imputations"].shape == (3, 80, 3)
        assert stored["columns"].tolist() == ["height", "weight", "age"]
        np.testing.assert_array_equal(stored["mask"], frame.notna())
        np.testing.assert_array_equal(stored["ids"], np.arange(80))
        assert (stored["lower"] <= stored["upper"]).all()
        made = impute(
            RunFolder(run).load_model(), torch.tensor(frame.to_numpy()), num_draws=50, num_imputations=3, seed=4
        )
        np.testing.assert_allclose(stored["mean"], made.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stored["imputations"], made.imputations, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npy"])
def test_one_complete_data_set(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"filled{ending}"
    done("impute", run, run.parent / "table.csv", "--out", out, "--draws", 50)
    frame = pd.read_csv(run.parent / "table.csv")
    if ending == ".npy":
        filled = np.load(out)
    else:
        table = pd.read_csv(out) if ending == ".csv" else pd.read_parquet(out)
        assert list(table.columns) == ["height", "weight", "age"]
        filled = table.to_numpy()
    assert np.isfinite(filled).all()
    seen = frame.notna().to_numpy()
    np.testing.assert_allclose(filled[seen], frame.to_numpy()[seen], rtol=1e-6)


def test_the_run_has_a_split_of_its_own(run: Path, tmp_path: Path) -> None:
    done("impute", run, "--out", tmp_path / "a.npz", "--split", "train", "--draws", 20, "--limit", 30)
    with np.load(tmp_path / "a.npz") as stored:
        assert len(stored["mean"]) == 30
        assert stored["imputations"].shape == (0, 30, 3)


def test_refusals(run: Path, tmp_path: Path) -> None:
    def says(data: Path, name: str, *options: object) -> str:
        return refused("impute", run, data, "--out", tmp_path / name, *options)

    table, complete = run.parent / "table.csv", tmp_path / "complete.npy"
    assert "the ending chooses the format, .npz, .npy, .csv or .parquet" in says(table, "a.txt")
    assert "--num-imputations 2 requires an --out in .npz" in says(table, "a.csv", "--num-imputations", 2)
    np.save(complete, np.zeros((5, 3)))
    assert "nothing is missing in" in says(complete, "a.npz")
    assert "nothing is missing in the first 2 of" in says(complete, "a.npz", "--limit", 2)
    assert "--level lies between 0 and 1" in says(table, "a.npz", "--level", 1.5)
    assert "no file" in says(tmp_path / "none.csv", "a.npz")
    np.save(tmp_path / "wide.npy", np.full((5, 4), np.nan))
    says(tmp_path / "wide.npy", "a.npz")
    assert not list(tmp_path.glob("a.*"))


def test_a_table_of_several_kinds_gets_its_categories_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"size": random.normal(size=60), "kind": random.choice(["a", "b", "c"], 60)})
    schema = infer(frame)
    vae = VAE(
        VAEConfig(
            x_shape=(2,),
            latent_dim=2,
            likelihood={"name": "table", "columns": [column.model_dump() for column in schema.columns]},
        )
    )
    values = torch.as_tensor(schema.encode(frame)[0]).float()
    vae.initialize(values)
    mask = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) < 0.7
    write(tmp_path / "t.csv", impute(vae, values, mask=mask, num_draws=50, level=None), vae, None)
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table.columns) == ["size", "kind"]
    assert set(table["kind"]) <= {"a", "b", "c"}
    seen = mask.numpy()[:, 1]
    assert (table["kind"][seen] == frame["kind"][seen]).all()
