"""``vae-pyro schema``: the kinds that a fit would infer."""

import json
from pathlib import Path

import pytest

from tests.vae_pyro.cli.calls import call, done, refused
from tests.vae_pyro.data.tables.frames import ROWS, sample
from vae_pyro import Schema, VAEConfig
from vae_pyro.data.tables.reading import read_table


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A table of six columns and identifiers as csv and parquet."""
    frame = sample(id=range(ROWS))
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    return {"csv": tmp_path / "t.csv", "parquet": tmp_path / "t.parquet"}


def test_the_table_shows_what_would_be_fitted(files: dict[str, Path]) -> None:
    shown = done("schema", files["parquet"], "--kind", "visits=real", "--kind", "income=drop")
    assert "left out: id: whole numbers" in shown
    assert "left out: income: as asked" in shown
    assert "60 rows; a log density is one of columns of a table: density of 2 real in their own units" in shown


def test_json_is_a_likelihood(files: dict[str, Path]) -> None:
    stated = json.loads(call("schema", files["csv"], "--kind", "size=s<m<l<xl", "--json").output)
    config = VAEConfig(x_shape=(len(stated["columns"]),), latent_dim=2, likelihood=stated)
    assert config.likelihood.name == "table"
    found = Schema(columns=stated["columns"])
    assert found.columns[5].kind == "ordinal"
    assert found.columns == read_table(files["csv"], {"size": ["s", "m", "l", "xl"]}).schema.columns


def test_a_kind_without_a_name_is_refused(files: dict[str, Path]) -> None:
    assert "a kind is NAME=KIND" in refused("schema", files["csv"], "--kind", "visits")
