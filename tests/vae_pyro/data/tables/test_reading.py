"""Tables from files and from memory."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.tables.process import Process
from tests.vae_pyro.data.tables.frames import ROWS, sample
from vae_pyro.data.readers import open_source
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.reading import read_table
from vae_pyro.data.tables.schema import Schema


def files(folder: Path, frame: pd.DataFrame) -> dict[str, Any]:
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet")
    return {
        "frame": frame,
        "arrow": pa.Table.from_pandas(frame),
        "csv": folder / "t.csv",
        "parquet": str(folder / "t.parquet"),
    }


def test_every_source_gives_the_same_table(tmp_path: Path) -> None:
    frame = sample()
    frame.loc[::7, "height"] = np.nan
    frame.loc[::5, "city"] = None
    kinds = {"size": ["s", "m", "l", "xl"]}  # a csv file does not keep the order
    tables = {name: read_table(source, kinds) for name, source in files(tmp_path, frame).items()}
    wanted, mask = tables["frame"].schema.encode(frame)
    for name, table in tables.items():
        np.testing.assert_array_equal(table.values, wanted, err_msg=name)
        np.testing.assert_array_equal(table.mask, mask, err_msg=name)
        kinds_of = [(column.kind, column.categories) for column in table.schema.columns]
        assert kinds_of == [(column.kind, column.categories) for column in tables["frame"].schema.columns], name


def test_a_file_is_read_with_the_schema_of_another(tmp_path: Path) -> None:
    """Categories that look like numbers are text where the schema says so."""
    frame = pd.DataFrame({"zone": ["1", "2", "A"] * 4, "x": np.linspace(0, 1, 12)})
    found = infer(frame)
    frame[frame["zone"] != "A"].to_csv(tmp_path / "new.csv", index=False)
    table = read_table(tmp_path / "new.csv", schema=found)
    assert set(table.values[:, 0]) == {0.0, 1.0}
    assert table.schema is found
    with pytest.raises(ValueError, match="kinds=.* and a schema exclude each other"):
        read_table(frame, {"zone": "category"}, schema=found)


def test_arrow_types_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "zone": pa.array(["n", "s", None, "w"] * 3).dictionary_encode(),
            "price": pa.array([Decimal("1.50"), Decimal("-2.25"), None, Decimal("0.10")] * 3),
            "stock": pa.array([1, None, 3, 8] * 3, type=pa.uint8()),
            "open": pa.array([True, None, False, True] * 3),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    for source in (table, tmp_path / "t.parquet", table.to_pandas(types_mapper=pd.ArrowDtype)):
        read = read_table(source)
        assert [column.kind for column in read.schema.columns] == ["category", "real", "count", "binary"]
        assert read.mask.sum(0).tolist() == [9, 9, 9, 9]
        back = read.schema.decode(read.values)
        assert back["zone"].astype(object).where(back["zone"].notna(), None).tolist()[:4] == ["n", "s", None, "w"]
        assert back["price"].tolist()[1] == -2.25
    nan = pa.table({"x": pa.array([1.5, float("nan"), -2.0, None])}).to_pandas(types_mapper=pd.ArrowDtype)
    assert nan["x"].notna().tolist() == [True, True, True, False]
    assert read_table(nan).mask[:, 0].tolist() == [True, False, True, False]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.csv"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"cannot read .*x\.npy' as a table: expected \.csv or \.parquet"):
        read_table(tmp_path / "x.npy")
    (tmp_path / "bad.parquet").write_text("nothing")
    with pytest.raises(ValueError, match=r"cannot read .*bad\.parquet"):
        read_table(tmp_path / "bad.parquet")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"cannot read .*empty\.csv"):
        read_table(tmp_path / "empty.csv")
    (tmp_path / "head.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"head\.csv' has no rows"):
        read_table(tmp_path / "head.csv")
    (tmp_path / "bare.csv").write_text("1.0,2.0\n3.0,4.0\n")
    with pytest.raises(ValueError, match="begins with numbers where names of columns belong"):
        read_table(tmp_path / "bare.csv")
    with pytest.raises(ValueError, match=r"a table is a DataFrame, a pyarrow\.Table, or a path, got list"):
        read_table([1, 2])


def test_tables_with_other_columns_than_numbers_are_told_apart(tmp_path: Path) -> None:
    sources = files(tmp_path, sample())
    sample()[["height", "visits"]].to_csv(tmp_path / "numbers.csv", index=False)
    sample()[["height", "visits"]].to_parquet(tmp_path / "numbers.parquet")
    for suffix in ("csv", "parquet"):
        assert open_source(sources[suffix], kinds="auto").about.schema is not None
        plain = open_source(tmp_path / f"numbers.{suffix}", kinds="auto")
        assert (plain.about.schema, plain.about.columns) == (None, ("height", "visits"))
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    assert open_source(tmp_path / "x.npy", kinds="auto").about.schema is None


def test_the_made_table_of_the_benchmark_knows_its_own_probability() -> None:
    """Two grids agree; cells left out are summed over: the density of the rest is the sum over the codes of one."""
    process = Process()
    table = read_table(process.draw(20, seed=3), {"grade": "ordinal"})
    fine, _ = process.known(table.values, table.mask, points=201)
    whole, _ = process.known(table.values, table.mask)
    np.testing.assert_allclose(whole, fine, atol=5e-3)
    place = table.schema.names.index("city")
    hidden = table.mask.copy()
    hidden[:, place] = False
    rest, codes = process.known(table.values, hidden)
    total = np.zeros(20)
    for code in range(5):
        values = table.values.copy()
        values[:, place] = code
        joint = np.exp(process.known(values, table.mask)[0] - rest)
        np.testing.assert_allclose(joint, codes["city"][:, code], atol=1e-9)
        total += joint
    np.testing.assert_allclose(total, 1, atol=1e-9)


def test_a_file_is_fitted_as_what_its_columns_are(tmp_path: Path) -> None:
    """Text makes the likelihood ``table``; numbers alone stay Gaussian; other data take the codes of the run's."""
    from vae_pyro.data.dataset import DataConfig, load_all
    from vae_pyro.training.settings import assemble

    frame = sample(id=range(ROWS))
    frame.loc[:5, "city"] = None
    sources = files(tmp_path, frame)
    settings = assemble(str(sources["csv"]), assignments=[(["data", "kinds"], {"visits": "real", "income": "drop"})])
    assert settings.model.likelihood.name == "table"
    found = settings.data.facts.schema
    assert found is not None
    assert Schema(columns=settings.model.likelihood.options["columns"]).columns == found.columns
    assert [column.kind for column in found.columns] == ["real", "real", "binary", "category", "category"]
    assert set(found.left_out) == {"id", "income"}
    assert settings.model.encode_mask
    assert settings.data.train.mask is not None
    assert settings.data.facts.space == found.space
    frame[frame["city"] == "Lyon"].to_csv(tmp_path / "new.csv", index=False)
    config = DataConfig(source=str(tmp_path / "new.csv"), columns=found.columns)
    assert set(load_all(config).values[:, 3].tolist()) == {2.0}
    frame[["height", "visits"]].to_csv(tmp_path / "numbers.csv", index=False)
    plain = assemble(str(tmp_path / "numbers.csv"))
    assert (plain.model.likelihood.name, plain.data.config.kinds) == ("gaussian", None)
    as_table = assemble(str(tmp_path / "numbers.csv"), assignments=[(["model", "likelihood"], "table")])
    assert as_table.data.config.kinds == {}
    both = [(["model", "likelihood"], "gaussian"), (["data", "kinds"], {"visits": "real"})]
    with pytest.raises(ValueError, match="kinds of columns are for the likelihood 'table', not 'gaussian'"):
        assemble(str(sources["csv"]), assignments=both)
    with pytest.raises(ValueError, match=r"require a table \(\.csv, \.parquet\), got 'digits'"):
        assemble("digits", assignments=[(["model", "likelihood"], "table")])
