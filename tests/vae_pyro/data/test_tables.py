"""What columns are taken for follows stated rules, and a table goes to numbers and back without loss."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.tables.process import Process
from vae_pyro.data.tables.inference import infer, parse_kind
from vae_pyro.data.tables.reading import is_mixed, read_table
from vae_pyro.data.tables.schema import Column, Schema

ROWS = 60


def sample(seed: int = 0, **columns: Any) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    made = {
        "height": 170 + 10 * random.normal(size=ROWS),
        "income": np.exp(8 + random.normal(size=ROWS)),
        "visits": random.poisson(3, ROWS),
        "smokes": random.random(ROWS) < 0.4,
        "city": random.choice(["Bern", "Graz", "Lyon"], ROWS),
        "size": pd.Categorical(random.choice(["s", "m", "l"], ROWS), ["s", "m", "l", "xl"], ordered=True),
    }
    return pd.DataFrame({**made, **columns})


def kind_of(values: Any, **kinds: Any) -> str:
    frame = pd.DataFrame({"other": np.linspace(0, 1, len(values)) ** 2 - 0.3, "x": values})
    found = infer(frame, kinds)
    return next((column.kind for column in found.columns if column.name == "x"), f"left out: {found.left_out.get('x')}")


RANDOM = np.random.default_rng(1)
SKEWED = RANDOM.lognormal(size=50)
TIMES = 10


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False] * TIMES, "binary"),
        ([True, None, False] * TIMES, "binary"),
        (pd.array([True, None, False] * TIMES, dtype="boolean"), "binary"),
        ([0, 1, 1] * TIMES, "binary"),
        ([2.5, -1.0] * TIMES, "binary"),
        (["yes", "no", None] * TIMES, "binary"),
        (["a", "b", "c"] * TIMES, "category"),
        (pd.Categorical(["a", "b", "c"] * TIMES), "category"),
        (pd.Categorical([1, 2, 3] * TIMES), "category"),
        (pd.Series(["a", 1, 2.5] * TIMES, dtype=object), "category"),
        (pd.Categorical(["a", "b", "c"] * TIMES, ["c", "a", "b"], ordered=True), "ordinal"),
        ([0, 3, 7, 1] * TIMES, "count"),
        ([1, 2, 3] * TIMES, "count"),  # few levels stay a count
        ([0.0, 3.0, np.nan, 7.0] * TIMES, "count"),  # whole numbers that a missing value has made floats
        (pd.array([0, 3, None, 7] * TIMES, dtype="Int64"), "count"),
        ([-1, 3, 7] * TIMES, "real"),
        ([0, 3, 10_001] * TIMES, "real"),  # zero has no logarithm
        ([20_000, 30_000, 25_000, 900_000] * TIMES, "positive"),
        (SKEWED, "positive"),
        (SKEWED * 1e-6, "positive"),
        (RANDOM.normal(size=50), "real"),
        (10 + RANDOM.normal(size=50), "real"),  # above zero and not skewed
        (-SKEWED, "real"),
        (np.concatenate([1 + RANDOM.random(50), [9.0, 9.5, 1e-9]]), "real"),  # whose logarithms are more skewed
        ([Decimal("1.5"), Decimal("-2.25"), Decimal("0.1")] * TIMES, "real"),
        (list(range(30)), "left out: whole numbers without a gap or a repetition number the rows.*choose a kind"),
        ([7.0] * 30, "left out: every value is 7.0; there is nothing to learn"),
        ([None] * 30, "left out: no value is observed"),
        ([f"name {k}" for k in range(30)], "left out: 30 different values in 30 rows identify.*choose category"),
        ([f"name {k % 101}" for k in range(500)], "left out: 101 different values"),
    ],
)
def test_the_rules(values: Any, kind: str) -> None:
    import re

    assert re.match(kind, kind_of(values)), kind_of(values)


@pytest.mark.parametrize(
    ("values", "wanted", "kind"),
    [
        ([0, 3, 7, 1] * TIMES, "real", "real"),
        ([1, 3, 7, 2] * TIMES, "positive", "positive"),
        ([0, 3, 7, 1] * TIMES, "category", "category"),
        ([0, 3, 7, 1] * TIMES, "ordinal", "ordinal"),
        ([True, False] * TIMES, "real", "real"),
        (["1", "10", "2"] * TIMES, "real", "real"),
        (["m", "s", "l"] * TIMES, ["s", "m", "l"], "ordinal"),
        ([3, 1, 2] * TIMES, ["1", "2", "3"], "ordinal"),  # a command line knows text alone
        (list(range(30)), "count", "count"),
        ([f"name {k}" for k in range(30)], "category", "category"),
        ([date(2020, 1, k + 1) for k in range(30)], "drop", "left out: as asked"),
    ],
)
def test_a_user_overrides_a_column(values: Any, wanted: Any, kind: str) -> None:
    assert kind_of(values, x=wanted) == kind


@pytest.mark.parametrize(
    ("values", "kinds", "message"),
    [
        (["a", "b", "c"] * TIMES, {"x": "real"}, "'x' wants finite numbers, got 'a' in row 0.*a kind other than real"),
        (
            [0.0, 2.0, 3.0] * TIMES,
            {"x": "positive"},
            "'x' is positive and wants numbers above zero, got 0 in row 0 .and 9",
        ),
        ([1.5, 2.0, 3.0] * TIMES, {"x": "count"}, "'x' is count and wants whole numbers from 0 up, got 1.5 in row 0"),
        ([1, 2, 3] * TIMES, {"x": "binary"}, "'x' is binary and wants 2 values, got 3: 1, 2, 3"),
        (["a", "b", "c"] * TIMES, {"x": "ordinal"}, "'x' is ordinal, but its order is not known.*x=a<b<c"),
        (["a", "b", "c"] * TIMES, {"x": ["a", "b"]}, "unknown category 'c' in row 2; known are 'a', 'b'"),
        ([1.0] * 30, {"x": "real"}, "'x' cannot be 'real': every value is 1.0; leave it out with x=drop"),
        ([1.0, 2.0, 3.0], {"y": "real"}, "no column 'y'; it has 'other', 'x'"),
        ([1.0, 2.0, 3.0], {"othr": "real"}, "did you mean 'other'"),
        ([1.0, 2.0, 3.0], {"x": "reel"}, "'x' cannot be 'reel'; choose from real, positive"),
        ([1.0, np.inf, 3.0], {}, "'x' wants finite numbers, got inf in row 1; replace it or make it missing"),
        (pd.date_range("2020", periods=3), {}, r"'x' holds datetime64 values such as '2020-01-01.*days since.*x=drop"),
        ([date(2020, 1, 1), None, date(2020, 1, 3)], {}, "'x' holds date values such as '2020-01-01'"),
        (pd.to_timedelta([1, 2, 3], unit="s"), {}, "'x' holds timedelta64 values"),
        ([[1], [2], [3]], {}, r"'x' holds list such as '\[1\]'.*take it apart"),
        ([1 + 2j, 3j, 1], {}, "'x' holds complex"),
        (
            1.6e9 + np.arange(3.0) ** 2,
            {},
            "lies at 1.6e.09 and varies by .* which float32 resolves in steps of 128: subtract",
        ),
    ],
)
def test_refusals_name_column_and_value_and_the_way_out(values: Any, kinds: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind_of(values, **kinds)


def test_a_table_comes_back_as_it_was() -> None:
    frame = sample(
        small=np.arange(ROWS, dtype=np.int8) % 7,
        single=np.linspace(-1, 1, ROWS, dtype=np.float32),
        flag=pd.array([True, None, False] * (ROWS // 3), dtype="boolean"),
        whole=pd.array([5, None, 9, 11] * (ROWS // 4), dtype="Int64"),
        answer=pd.Series(["yes", None, "no"] * (ROWS // 3), dtype=object),
        colour=pd.Categorical(["red", "blue", None, "green"] * (ROWS // 4)),
        grade=[1, 2, 3] * (ROWS // 3),
    )
    frame.loc[::7, "height"] = np.nan
    frame.loc[::5, "city"] = None
    found = infer(frame, {"grade": "ordinal", "small": "category"})
    values, mask = found.encode(frame)
    assert (values.dtype, values.shape, mask.shape) == (np.float64, (ROWS, 13), (ROWS, 13))
    np.testing.assert_array_equal(mask, frame.notna().to_numpy())
    np.testing.assert_array_equal(np.isnan(values), ~mask)
    pd.testing.assert_frame_equal(found.decode(values), frame)
    # The schema that a file keeps is the schema.
    again = Schema(**json.loads(json.dumps(found.model_dump(mode="json"))))
    assert again == found
    assert [type(level) for column in again.columns for level in column.categories] == [
        type(level) for column in found.columns for level in column.categories
    ]
    pd.testing.assert_frame_equal(again.decode(values), frame)


def test_codes_follow_the_order_of_the_categories() -> None:
    frame = sample()
    found = infer(frame)
    levels = {column.name: column.categories for column in found.columns}
    assert levels["city"] == ("Bern", "Graz", "Lyon")
    assert levels["smokes"] == (False, True)
    assert levels["size"] == ("s", "m", "l", "xl")  # one that no row has is possible
    values, _ = found.encode(frame)
    assert [levels["size"][int(code)] for code in values[:, 5]] == frame["size"].tolist()
    assert infer(frame.assign(city=frame["city"].astype("category"))).columns[4].categories == levels["city"]


def test_draws_become_whole_numbers_where_the_table_has_them_and_unknown_codes_are_refused() -> None:
    frame = pd.DataFrame({"age": [30, 41, 57, 33], "city": ["a", "b", "a", "b"]})
    found = infer(frame, {"age": "real"})
    made = found.decode([[30.4, 1.0], [41.6, 0.0]])
    assert made["age"].tolist() == [30, 42]
    assert made.dtypes.to_dict() == frame.dtypes.to_dict()
    hidden = found.decode([[30.4, 1.0], [41.6, 0.0]], mask=[[False, True], [True, False]])
    assert str(hidden["age"].dtype) == "Int64"
    assert hidden.isna().to_numpy().tolist() == [[True, False], [False, True]]
    with pytest.raises(ValueError, match="'city' has no category of code 2; it has 2"):
        found.decode([[30.0, 2.0]])
    with pytest.raises(ValueError, match=r"shape \(datum, 2\) wanted, got \(1, 3\)"):
        found.decode([[30.0, 1.0, 0.0]])


def test_new_tables_are_read_with_the_schema_of_the_old() -> None:
    frame = sample()
    found = infer(frame)
    turned = frame[list(reversed(frame.columns))].assign(comment="anything")
    for ours, theirs in zip(found.encode(turned), found.encode(frame), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="'city' has the unknown category 'Oslo' in row 3; known are 'Bern', 'Graz'"):
        found.encode(frame.assign(city=["Bern"] * 3 + ["Oslo"] * (ROWS - 3)))
    with pytest.raises(ValueError, match="lacks the columns 'city', 'size'; it has 'height'"):
        found.encode(frame.drop(columns=["city", "size"]))
    with pytest.raises(ValueError, match="'visits' is count and wants whole numbers from 0 up, got -1 in row 0"):
        found.encode(frame.assign(visits=-1))
    with pytest.raises(ValueError, match="two columns are called 'city'"):
        infer(pd.concat([frame, frame["city"]], axis=1))


def test_what_columns_cannot_be() -> None:
    for wrong, message in (
        ({"kind": "binary", "categories": (1, 2, 3)}, "is binary and wants 2 categories, got 3"),
        ({"kind": "category", "categories": ("a",)}, "wants at least 2 categories, got 1"),
        ({"kind": "ordinal", "categories": ("a", "b", "a")}, "names a category twice"),
        ({"kind": "real", "categories": ("a", "b")}, "is real and has no categories"),
    ):
        with pytest.raises(ValueError, match=message):
            Column(name="x", **wrong)
    with pytest.raises(ValueError, match="two columns are called 'x'"):
        Schema(columns=(Column(name="x", kind="real"), Column(name="x", kind="count")))
    with pytest.raises(ValueError, match=r"no column of the table can be described \('x': every value is 1"):
        infer(pd.DataFrame({"x": [1, 1, 1]}))


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (np.asarray([100.0, 250.0, -50.0]), 50.0),
        (np.asarray([1.25, 3.5, 2.75, -1.0]), 0.25),
        (np.asarray([1.25, 3.5, 2.75, -1.0], dtype=np.float32), 0.25),
        (np.asarray([0.1, 0.2, -0.7], dtype=np.float32), 0.1),
        (np.asarray([0.1, 0.2, -0.7]), 0.1),
        (np.asarray([1e4 + 1 / 3, 1e4 + 2 / 7, 1e4 - 3.3]), None),
        (np.random.default_rng(0).normal(size=40), None),
        (np.random.default_rng(0).normal(size=40).astype(np.float32), None),
        (np.random.default_rng(0).normal(size=40).round(2), 0.01),
    ],
)
def test_the_lattice_of_rounded_numbers(values: Any, step: float | None) -> None:
    (column,) = infer(pd.DataFrame({"x": values}), {"x": "real"}).columns
    assert column.step == (None if step is None else pytest.approx(step))


def test_the_schema_is_shown() -> None:
    frame = sample(id=range(ROWS))
    frame.loc[:5, "city"] = None
    text = str(infer(frame))
    assert "city    category  categorical        Bern, Graz, Lyon" in text
    assert text.splitlines()[5].endswith("10.0%")
    assert "size    ordinal   cumulative logit   s < m < l < xl" in text
    assert text.splitlines()[-1].startswith("left out: 'id': whole numbers")


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
    assert is_mixed(sources["csv"])
    assert is_mixed(sources["parquet"])
    sample()[["height", "visits"]].to_csv(tmp_path / "numbers.csv", index=False)
    assert not is_mixed(tmp_path / "numbers.csv")
    assert not is_mixed("digits")
    assert not is_mixed(tmp_path)


def test_kinds_of_a_command_line() -> None:
    assert parse_kind("age=real") == ("age", "real")
    assert parse_kind("a = b=drop") == ("a = b", "drop")
    for wrong in ("age", "=real", "age=", ""):
        with pytest.raises(ValueError, match="a kind is NAME=KIND"):
            parse_kind(wrong)


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
    found = Schema(**settings.data.facts["schema"])
    assert Schema(columns=settings.model.likelihood.options["columns"]).columns == found.columns
    assert [column.kind for column in found.columns] == ["real", "real", "binary", "category", "category"]
    assert set(found.left_out) == {"id", "income"}
    assert settings.model.encode_mask
    assert settings.data.train.mask is not None
    assert settings.data.facts["space"] == found.space
    frame[frame["city"] == "Lyon"].to_csv(tmp_path / "new.csv", index=False)
    config = DataConfig(source=str(tmp_path / "new.csv"), columns=settings.data.facts["schema"]["columns"])
    assert set(load_all(config).values[:, 3].tolist()) == {2.0}
    frame[["height", "visits"]].to_csv(tmp_path / "numbers.csv", index=False)
    plain = assemble(str(tmp_path / "numbers.csv"))
    assert (plain.model.likelihood.name, plain.data.config.kinds) == ("gaussian", None)
    as_table = assemble(str(tmp_path / "numbers.csv"), assignments=[(["model", "likelihood"], "table")])
    assert as_table.data.config.kinds == {}
    both = [(["model", "likelihood"], "gaussian"), (["data", "kinds"], {"visits": "real"})]
    with pytest.raises(ValueError, match="kinds of columns are for the likelihood 'table', not 'gaussian'"):
        assemble(str(sources["csv"]), assignments=both)
    with pytest.raises(ValueError, match=r"want a table \(\.csv, \.parquet\), got 'digits'"):
        assemble("digits", assignments=[(["model", "likelihood"], "table")])


def test_numbers_that_the_type_cannot_hold_get_a_wider_one() -> None:
    """Draws and averages lie beyond what was seen; none may wrap around, or become true."""
    table = pd.DataFrame({"a": np.array([1, 9, 4, 7] * 8, np.int8), "b": np.array([0, 3, 50, 9] * 8, np.uint8)})
    table["c"] = [True, False] * 16
    chosen = infer(table, {"a": "count", "b": "real", "c": "real"})
    made = chosen.decode([[140.0, -1.24, 0.1], [3.0, np.nan, 1.0]])
    assert made["a"].tolist() == [140, 3]
    assert made["b"].tolist()[0] == -1
    assert made["b"].isna().tolist() == [False, True]
    assert made["c"].tolist() == [0.1, 1.0]
    assert chosen.decode([[100.0, 2.0, 0.0]])["a"].dtype == np.int8
    above = infer(pd.DataFrame({"n": [1, 5, 90, 1000] * 9}), {"n": "positive"})
    assert above.decode([[0.3]])["n"].tolist() == [1]  # which encode takes back


def test_decimals_with_two_values_are_numbers() -> None:
    column = infer(pd.DataFrame({"x": [Decimal("0.1"), Decimal("0.2")] * 10})).columns[0]
    assert (column.kind, column.categories) == ("binary", (0.1, 0.2))
