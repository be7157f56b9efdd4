"""A table goes to numbers and back without loss."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.vae_pyro.data.tables.frames import ROWS, sample
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.schema import Column, Schema


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
    with pytest.raises(ValueError, match=r"shape \(datum, 2\) expected, got \(1, 3\)"):
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
    with pytest.raises(ValueError, match="'visits' is count and requires whole numbers from 0 up, got -1 in row 0"):
        found.encode(frame.assign(visits=-1))
    with pytest.raises(ValueError, match="two columns are called 'city'"):
        infer(pd.concat([frame, frame["city"]], axis=1))


def test_what_columns_cannot_be() -> None:
    for wrong, message in (
        ({"kind": "binary", "categories": (1, 2, 3)}, "is binary and requires 2 categories, got 3"),
        ({"kind": "category", "categories": ("a",)}, "requires at least 2 categories, got 1"),
        ({"kind": "ordinal", "categories": ("a", "b", "a")}, "names a category twice"),
        ({"kind": "real", "categories": ("a", "b")}, "is real and has no categories"),
    ):
        with pytest.raises(ValueError, match=message):
            Column(name="x", **wrong)
    with pytest.raises(ValueError, match="two columns are called 'x'"):
        Schema(columns=(Column(name="x", kind="real"), Column(name="x", kind="count")))
    with pytest.raises(ValueError, match=r"no column of the table can be described \('x': every value is 1"):
        infer(pd.DataFrame({"x": [1, 1, 1]}))


def test_the_schema_is_shown() -> None:
    frame = sample(id=range(ROWS))
    frame.loc[:5, "city"] = None
    text = str(infer(frame))
    assert "city    category  categorical        Bern, Graz, Lyon" in text
    assert text.splitlines()[5].endswith("10.0%    names")
    assert "size    ordinal   cumulative logit   s < m < l < xl" in text
    assert text.splitlines()[-1].startswith("left out: 'id': whole numbers")


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


def test_numbers_that_float32_rounds_are_given_back_on_their_lattice() -> None:
    """Draws are float32; means of draws, which lie between roundings, stay as they are."""
    column = Column(name="x", kind="real", step=0.1, low=0.0, high=100.0)
    exact = np.array([61.1, 0.3, 99.9, np.nan])
    assert column.decode(exact.astype(np.float32).astype(np.float64)).tolist()[:3] == [61.1, 0.3, 99.9]
    assert column.decode(np.array([61.123, 0.31])).tolist() == [61.123, 0.31]
