"""``vae-pyro sample``: draws and their pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tests.vae_pyro.cli.calls import done, refused


def test_draws_are_those_of_the_likelihood(digits_run: Path, tmp_path: Path) -> None:
    done("sample", digits_run, "--num", "9", "--out", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as drawn:
        assert drawn["x"].shape == drawn["expectation"].shape == (9, 1, 8, 8)
        assert set(np.unique(drawn["x"])) <= {0, 1}
    done("sample", digits_run, "--out", tmp_path / "s.png")
    assert np.asarray(Image.open(tmp_path / "s.png").convert("L")).std() > 5  # something is drawn


def test_refusals(digits_run: Path, tmp_path: Path) -> None:
    assert "the ending chooses the format, .png, .npz, .csv or .parquet" in refused(
        "sample", digits_run, "--out", tmp_path / "s.jpg"
    )
    assert "not a run folder" in refused("sample", tmp_path, "--out", tmp_path / "s.png")
    assert not list(tmp_path.iterdir())


def test_draws_of_a_table_are_a_table(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=200)
    source = pd.DataFrame({"height": np.round(170 + 8 * z, 1), "smokes": np.where(z > 0, "yes", "no"), "n": 3.5 + z})
    source.to_csv(tmp_path / "t.csv", index=False)
    run = tmp_path / "run"
    done("fit", tmp_path / "t.csv", "--epochs", "1", "--kind", "height=real", "--out", run)
    done("sample", run, "--num", "50", "--out", tmp_path / "all.csv")
    drawn = pd.read_csv(tmp_path / "all.csv")
    assert list(drawn.columns) == ["height", "smokes", "n"]
    assert len(drawn) == 50
    assert np.allclose(drawn["height"] * 10, np.round(drawn["height"] * 10))
    said = done("sample", run, "--num", "20", "--where", "smokes=yes, height>165", "--out", tmp_path / "some.parquet")
    assert "effective sample size of the latents" in said
    some = pd.read_parquet(tmp_path / "some.parquet")
    assert set(some["smokes"]) == {"yes"}
    assert some["height"].min() > 165
    assert "--where chooses rows of a table" in refused("sample", run, "--where", "n>1", "--out", tmp_path / "s.npz")
