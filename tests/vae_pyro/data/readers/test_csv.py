"""``.csv`` tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vae_pyro import load_data
from vae_pyro.data.tables.reading import read_table


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


@pytest.mark.parametrize(
    ("text", "line", "fields"),
    [
        ("age,income\n" + "31,1000,\n" * 30, 2, 3),
        ("age,income\n" + "31,1000,7,8\n" * 30, 2, 4),
        ("\nage,income\n\n" + "31,1000,\n" * 30, 4, 3),
        ('age,"in\ncome"\n' + "31,1000,\n" * 30, 3, 3),
    ],
)
@pytest.mark.parametrize("read", [load_data, read_table])
def test_rows_with_more_fields_than_the_header_are_refused(
    read: Any, text: str, line: int, fields: int, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=f"t.csv', line {line}: {fields} fields under a header of 2"):
        read(tmp_path / "t.csv")


def test_a_later_row_with_more_fields_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,income\n" + "31,1000\n" * 30 + "31,1000,\n")
    with pytest.raises(ValueError, match="line 32, saw 3"):
        load_data(tmp_path / "t.csv")


def test_commas_at_the_ends_of_all_rows_and_of_the_header_add_no_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,income,\n" + "".join(f"{k}.5,{k * k}.25,\n" for k in range(30)))
    assert load_data(tmp_path / "t.csv").facts.columns == ("age", "income")
    assert read_table(tmp_path / "t.csv").schema.left_out == {}


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_named(separator: str, word: str, tmp_path: Path) -> None:
    rows = "".join(f"{k},5{separator}{k},25\n" for k in range(30))  # with commas for decimal points
    (tmp_path / "t.csv").write_text(f"age{separator}income\n{rows}")
    for read in (load_data, read_table):
        with pytest.raises(ValueError, match=f"is separated by {word} .* expected are commas"):
            read(tmp_path / "t.csv")


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,age\n" + "31,1000\n" * 30)
    with pytest.raises(ValueError, match="two columns are called 'age'"):
        load_data(tmp_path / "t.csv")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_number_that_is_not_finite_is_named_by_column_and_row(seed: int, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.linspace(0, 1, 40), "name": "n", "b": np.linspace(0, 1, 40)})
    frame.loc[[23, 31], "b"] = np.inf
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=10)
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(ValueError, match=rf"{name}'.* values are not finite, the first inf in column 'b', row 23;"):
            load_data(tmp_path / name, seed=seed)


def test_rows_that_end_early_are_refused_and_a_numbering_without_a_name_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    whole = "a,b,c\n" + "1.5,2.5,0.5\n\n" * 30
    file.write_text(whole + "3.5,4.5\n" + "1.5,2.5,0.5\n")
    with pytest.raises(ValueError, match=r"t.csv', line 62: 2 fields under a header of 3; complete the row, with an"):
        load_data(file)
    file.write_text(whole + "3.5,4.5,\n")
    assert load_data(file).x_shape == (3,)
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    for first, left_out in ((0, ("Unnamed: 0",)), (1, ("Unnamed: 0",)), (2, ())):
        frame.index = pd.RangeIndex(first, first + 40)
        frame.to_csv(file)
        data = load_data(file)
        assert data.facts.columns_left_out == left_out
        assert data.x_shape == (2 + (not left_out),)
    frame.to_csv(file, index_label="row")  # with a name it is a column like others
    assert load_data(file).x_shape == (3,)
