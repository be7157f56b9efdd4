"""``.csv`` tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vae_pyro import load_data


def test_tables_take_numeric_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(30), "name": ["n"] * 30, "b": np.linspace(0, 1, 30)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        data = load_data(tmp_path / name)
        assert data.facts.columns == ("a", "b")
        assert data.facts.columns_left_out == ("name",)
        assert data.x_shape == (2,)
    frame[["name"]].to_csv(tmp_path / "words.csv", index=False)
    with pytest.raises(ValueError, match="30 rows and no numeric column"):
        load_data(tmp_path / "words.csv")
    frame.loc[3, "b"] = np.nan
    frame.to_csv(tmp_path / "holes.csv", index=False)
    data = load_data(tmp_path / "holes.csv")
    hidden = {name: getattr(data, name).mask for name in ("train", "validation", "test")}
    assert sum(int((~mask).sum()) for mask in hidden.values() if mask is not None) == 1
    frame.loc[3, "b"] = np.inf
    frame.to_csv(tmp_path / "holes.csv", index=False)
    with pytest.raises(ValueError, match="1 values are not finite"):
        load_data(tmp_path / "holes.csv")


def test_tables_without_a_header(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "bare.csv", np.random.default_rng(0).normal(size=(20, 3)), delimiter=",")
    with pytest.raises(ValueError, match="begins with numbers where names of columns belong; add a header"):
        load_data(tmp_path / "bare.csv")
