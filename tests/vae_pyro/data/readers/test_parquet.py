"""Parquet files and folders of them."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.vae_pyro.data.makers import (
    SIZE,
    parquet_folder,
)
from vae_pyro import load_data
from vae_pyro.data.facts import About
from vae_pyro.data.readers import open_source


def test_broken_parquet(tmp_path: Path) -> None:
    store = parquet_folder(tmp_path)
    folder = tmp_path / "parquet"
    assert store.about == About(columns=("c0", "c1", "c2", "c3"), columns_left_out=("word",))
    (folder / "1.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot read .*1.parquet', row group 0"):
        store.read(0, SIZE)
    with pytest.raises(ValueError, match="cannot read .*1.parquet'"):
        open_source(folder)
    pd.DataFrame({"c0": [1.0], "other": [2.0]}).to_parquet(folder / "1.parquet")
    with pytest.raises(
        ValueError,
        match=r"columns differ: .*0.parquet' has the numeric columns 'c0', 'c1', .*1.parquet' has 'c0', 'other'",
    ):
        open_source(folder)
    pd.DataFrame({"w": ["a"]}).to_parquet(tmp_path / "words.parquet")
    with pytest.raises(ValueError, match="has 1 rows and no numeric columns"):
        open_source(tmp_path / "words.parquet")


def test_the_index_of_a_table_is_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40) % 3}, index=np.arange(40) * 7)
    frame.to_parquet(tmp_path / "t.parquet")
    for stream in (True, False):
        data = load_data(tmp_path / "t.parquet", stream=stream)
        assert data.facts.columns == ("a", "b")
        np.testing.assert_array_equal(data.train.stored(slice(None))[:, 0], data.train.ids)
    assert open_source(tmp_path / "t.parquet", kinds="auto").about.columns == ("b",)  # "a" numbers the rows
    frame.rename_axis("a place").to_parquet(tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").about.columns == ("a", "b")


def test_decimals_and_integers_with_gaps_are_numbers(tmp_path: Path) -> None:
    table = {"price": pa.array([Decimal("1.50"), None, Decimal("-2.25")]), "stock": pa.array([1, None, 2**40])}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    found = open_source(tmp_path / "t.parquet").read(0, 3)
    np.testing.assert_array_equal(found, [[1.5, 1], [np.nan, np.nan], [-2.25, 2**40]])
    mixed = open_source(tmp_path / "t.parquet", kinds="auto").about.schema  # a decimal is no plain number
    assert mixed is not None
    assert mixed.names == ["price", "stock"]


def test_row_groups_that_fill_the_memory_are_not_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.data.readers.chunks._MOST_BYTES", 1000)
    pd.DataFrame({"a": np.arange(200.0)}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="row groups of 0 MiB, .*write it with a smaller row_group_size"):
        load_data(tmp_path / "t.parquet", stream=True)
    assert len(load_data(tmp_path / "t.parquet", stream=False).train) == 144


def test_a_folder_is_no_single_table(tmp_path: Path) -> None:
    parquet_folder(tmp_path)
    with pytest.raises(ValueError, match="folder .*parquet' is no single table; join its files"):
        open_source(tmp_path / "parquet", kinds={})
    assert open_source(tmp_path / "parquet", kinds="auto").about.schema is None
