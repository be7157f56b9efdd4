"""What columns are taken for follows stated rules."""

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vae_pyro.data.tables.inference import infer, parse_kind
from vae_pyro.data.tables.schema import Column

ROWS = 60


def kind_of(values: Any, **kinds: Any) -> str:
    frame = pd.DataFrame({"other": np.linspace(0, 1, len(values)) ** 2 - 0.3, "x": values})
    found = infer(frame, kinds)
    return next((column.kind for column in found.columns if column.name == "x"), f"left out: {found.left_out.get('x')}")


RANDOM = np.random.default_rng(1)


COUNTS = RANDOM.poisson(3.0, 60)


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
        (COUNTS, "count"),
        ([np.nan, *COUNTS[1:]], "count"),  # whole numbers that a missing value has made floats
        (pd.array([0, 1, None, 2, 0] * TIMES, dtype="Int64"), "count"),
        (np.minimum(COUNTS, 4), "ordinal"),  # a count would have larger values
        (RANDOM.negative_binomial(2, 0.02, 300), "count"),
        ([1, 2, 3] * TIMES, "ordinal"),
        ([2007, 2008, 2009] * TIMES, "ordinal"),
        ([0, 3, 7, 1] * TIMES, "ordinal"),  # a count would have other values
        ([-1, 3, 7] * TIMES, "ordinal"),
        ([1, 2, 3], "real"),  # too few rows of each
        ([2, 4, 4, 1, 3, 5, 5, 1] * TIMES, "ordinal"),
        (RANDOM.binomial(200, 0.9, 300), "real"),  # a spread far below the mean
        (500 + RANDOM.poisson(400, 300), "real"),
        (RANDOM.integers(0, 100, 500), "real"),  # none above 99
        ([0, 3, 10_001, *range(27)], "real"),  # zero has no logarithm
        ([20_000, 30_000, 25_000, 900_000, *range(1000, 1026)], "positive"),
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
        (pd.date_range("2020", periods=30), "left out: datetime64 values such as '2020-01-01.*days since"),
        ([date(2020, 1, 1), None, *[date(2020, 1, 3)] * 20], "left out: date values such as '2020-01-01'"),
        (pd.to_timedelta(range(30), unit="s"), "left out: timedelta64 values"),
    ],
)
def test_the_rules(values: Any, kind: str) -> None:
    import re

    assert re.match(kind, kind_of(values)), kind_of(values)


@pytest.mark.parametrize(
    ("values", "wanted", "kind"),
    [
        (COUNTS, "real", "real"),
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
        (
            ["a", "b", "c"] * TIMES,
            {"x": "real"},
            "'x' requires finite numbers, got 'a' in row 0.*other than real",
        ),
        (
            [0.0, 2.0, 3.0] * TIMES,
            {"x": "positive"},
            "'x' is positive and requires numbers above zero, got 0 in row 0 .and 9",
        ),
        (
            [1.5, 2.0, 3.0] * TIMES,
            {"x": "count"},
            "'x' is count and requires whole numbers .*, got 1.5 in row 0",
        ),
        ([1, 2, 3] * TIMES, {"x": "binary"}, "'x' is binary and requires 2 values, got 3: 1, 2, 3"),
        (["a", "b", "c"] * TIMES, {"x": "ordinal"}, "'x' is ordinal, but its order is not known.*x=a<b<c"),
        (["a", "b", "c"] * TIMES, {"x": ["a", "b"]}, "unknown category 'c' in row 2; known are 'a', 'b'"),
        ([1.0] * 30, {"x": "real"}, "'x' cannot be 'real': every value is 1.0; leave it out with x=drop"),
        ([1.0, 2.0, 3.0], {"y": "real"}, "no column 'y'; it has 'other', 'x'"),
        ([1.0, 2.0, 3.0], {"othr": "real"}, "did you mean 'other'"),
        ([1.0, 2.0, 3.0], {"x": "reel"}, "'x' cannot be 'reel'; choose from real, positive"),
        ([1.0, np.inf, 3.0], {}, "'x' requires finite numbers, got inf in row 1; replace it or make it missing"),
        (
            pd.date_range("2020", periods=3),
            {"x": "real"},
            "'x': datetime64 values such as '2020-01-01.*days since.*x=drop",
        ),
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


def test_kinds_of_a_command_line() -> None:
    assert parse_kind("age=real") == ("age", "real")
    assert parse_kind("a = b=drop") == ("a = b", "drop")
    for wrong in ("age", "=real", "age=", ""):
        with pytest.raises(ValueError, match="a kind is NAME=KIND"):
            parse_kind(wrong)


def test_decimals_with_two_values_are_numbers() -> None:
    column = infer(pd.DataFrame({"x": [Decimal("0.1"), Decimal("0.2")] * 10})).columns[0]
    assert (column.kind, column.categories) == ("binary", (0.1, 0.2))


def test_identifiers_are_known_by_their_names() -> None:
    """Whole numbers without a repetition, which do not number the rows."""
    numbers = np.random.default_rng(0).permutation(10_000)[:200] * 3
    frame = pd.DataFrame({"customer_id": numbers, "salary": numbers, "id": numbers // 6})
    found = infer(frame)
    assert found.names == ["salary", "id"]
    assert "identify the rows, by their name; to keep them, choose a kind" in found.left_out["customer_id"]
    assert infer(frame, {"customer_id": "real"}).names == ["customer_id", "salary", "id"]


def test_each_column_has_the_reason_of_its_kind() -> None:
    frame = pd.DataFrame({"year": [2007, 2008, 2009] * 20, "visits": COUNTS, "name": ["a", "b", "c"] * 20})
    found = infer(frame, {"name": ["c", "a", "b"]})
    assert [column.reason for column in found.columns] == [
        "3 whole numbers; no count: the variance 0.667 is far below the mean 2.01e+03",
        "whole numbers from 0 with the mean and variance of a count",
        "as asked",
    ]
    assert all(column.reason in str(found) for column in found.columns)


def test_a_schema_without_reasons_is_read() -> None:
    """As those of earlier versions are."""
    assert Column(name="x", kind="count").reason == ""
