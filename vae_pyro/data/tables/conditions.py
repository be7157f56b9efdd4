"""Conditions on the columns of a table: ``cut=Ideal, price>5000``."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator

from vae_pyro.core.config import Config
from vae_pyro.data.tables.cells import Mask, Values, listed
from vae_pyro.data.tables.schema import CODED, Column, Schema

if TYPE_CHECKING:
    from pandas import DataFrame

type Operator = Literal["=", "!=", "<", "<=", ">", ">="]

# A name, an operator, and a value up to the next comma; both may stand in quotation marks.
_TERM = re.compile(
    r"""\s*(?:"(?P<quoted>[^"]*)"|(?P<name>[^=<>!,"]+?))\s*(?P<operator>==|!=|<=|>=|=|<|>)\s*"""
    r"""(?:"(?P<text>[^"]*)"|(?P<value>[^,"]*?))\s*(?:,|$)"""
)


class Condition(Config):
    """One column against one value.

    Attributes:
        column: its name.
        operator: how they compare.
        value: a number, or a category as text.
    """

    column: str
    operator: Operator
    value: bool | int | float | str

    @model_validator(mode="before")
    @classmethod
    def _one_sign_of_equality(cls, values: Any) -> Any:
        return {**values, "operator": "="} if values.get("operator") == "==" else values

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


def conditions(where: str | Mapping[str, Any] | None) -> list[Condition]:
    """Conditions from text, ``"cut=Ideal, price>5000"``, or from values by column, which are equalities.

    Args:
        where: text with the operators =, !=, <, <=, > and >=; names and values that hold a comma or an operator stand
            in double quotation marks.

    Raises:
        ValueError: text of another form; the message shows what was not understood.

    >>> [str(one) for one in conditions('cut=Ideal, "a, b" >= 5')]
    ['cut=Ideal', 'a, b>=5']
    """
    if where is None:
        return []
    if not isinstance(where, str):
        return [Condition(column=str(name), operator="=", value=value) for name, value in where.items()]
    found, at = [], 0
    while at < len(where):
        term = _TERM.match(where, at)
        if term is None:
            raise ValueError(
                f"where={where!r}: {where[at:].strip()!r} is no condition; write column=value or column>value, "
                "separated by commas"
            )
        name = term["name"] if term["quoted"] is None else term["quoted"]
        value = term["value"] if term["text"] is None else term["text"]
        operator: Any = term["operator"]  # the pattern has no others
        found.append(Condition(column=name, operator=operator, value=value))
        at = term.end()
    return found


class Where:
    """Conditions on the numbers of a table.

    Equalities with one value are what draws are conditioned on; the others hold for some of them.

    Args:
        found: the conditions.
        schema: of the table.

    Raises:
        ValueError: a column or category that is not known, a number that is none or out of the range of its column, an
            order of categories that have none, or two equalities on one column.
    """

    def __init__(self, found: list[Condition], schema: Schema) -> None:
        self._schema = schema
        self.given: dict[int, float] = {}
        self.tests: list[tuple[Condition, int, float]] = []
        for one in found:
            if one.column not in schema.names:
                reason = schema.left_out.get(one.column)
                known = f"it was left out of the fit ({reason})" if reason else f"columns are {listed(schema.names)}"
                raise ValueError(f"where {one}: no column {one.column!r}; {known}")
            place = schema.names.index(one.column)
            number = _number(one, schema.columns[place])
            if one.operator != "=":
                self.tests.append((one, place, number))
            elif place in self.given:
                raise ValueError(f"where {one}: column {one.column!r} has a value already; name each column once")
            else:
                self.given[place] = number

    def row(self) -> tuple[Values, Mask]:
        """One row that has the given values and nothing else, shape ``(1, column)``, and which these are."""
        values = np.full((1, len(self._schema.columns)), np.nan)
        for place, number in self.given.items():
            values[0, place] = number
        return values, ~np.isnan(values)

    def holds(self, values: Values) -> Mask:
        """Which rows ``(datum, column)`` meet the conditions that are no equalities."""
        met = np.ones(len(values), dtype=bool)
        for one, place, number in self.tests:
            column = values[:, place]
            met &= {
                "!=": column != number,
                "<": column < number,
                "<=": column <= number,
                ">": column > number,
                ">=": column >= number,
            }[one.operator]
        return met


def _number(one: Condition, column: Column) -> float:
    """What the table's numbers are compared with: the value, or the code of the category."""
    if column.kind in CODED:
        if column.kind == "category" and one.operator not in ("=", "!="):
            raise ValueError(f"where {one}: the categories of {column.name!r} have no order; compare with = or !=")
        codes = {str(category): code for code, category in enumerate(column.categories)}
        same = {float(c): code for code, c in enumerate(column.categories) if isinstance(c, bool | int | float)}
        text = str(one.value)
        if text in codes:
            return float(codes[text])
        number = _float(text)
        if number in same:
            return float(same[number])
        raise ValueError(f"where {one}: {column.name!r} has no category {text!r}; it has {listed(column.categories)}")
    number = _float(str(one.value))
    if np.isnan(number):
        raise ValueError(f"where {one}: {column.name!r} holds numbers, and {one.value!r} is none")
    if one.operator != "=":
        return number
    if column.low is not None and column.high is not None and not column.low <= number <= column.high:
        raise ValueError(
            f"where {one}: {column.name!r} goes from {column.low:g} to {column.high:g} in the data; nothing is known "
            "of rows beyond"
        )
    whole = column.kind == "count" or column.dtype.lower().startswith(("int", "uint"))
    if whole and number != round(number):
        raise ValueError(f"where {one}: {column.name!r} holds whole numbers")
    return number


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def bounded(values: Values, schema: Schema) -> Values:
    """Draws as the table has its numbers: on the steps of a rounded column, and within its range.

    Args:
        values: shape ``(datum, column)``.
        schema: of the table.
    """
    made = np.array(values, dtype=np.float64)
    for place, column in enumerate(schema.columns):
        if column.kind in CODED:
            continue
        if column.step is not None:
            start = column.low or 0.0
            made[:, place] = start + np.round((made[:, place] - start) / column.step) * column.step
        if column.low is not None and column.high is not None:
            made[:, place] = made[:, place].clip(column.low, column.high)
    return made


def as_frame(values: Values, schema: Schema) -> "DataFrame":
    """`bounded` draws as a table with the names, categories and types of the original."""
    return schema.decode(bounded(values, schema))
