"""The schema of a table: what each column is, its values as numbers, and numbers as its values again."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from vae_pyro.core.config import Config
from vae_pyro.data.observation import Space
from vae_pyro.data.tables.cells import Mask, Values, columns_of, listed, numbers, repeated, scalar, typed, unfit, within

if TYPE_CHECKING:
    from pandas import DataFrame, Series

type Kind = Literal["real", "positive", "count", "binary", "category", "ordinal"]
type Category = bool | int | float | str

# Kinds in the order in which the groups of a row stand, and what describes each.
KINDS: dict[str, str] = {
    "real": "normal",
    "positive": "log-normal",
    "count": "negative binomial",
    "binary": "Bernoulli",
    "ordinal": "cumulative logit",
    "category": "categorical",
}
# Kinds whose numbers are codes of categories, and those with a density; the others have a probability.
CODED = ("binary", "ordinal", "category")
CONTINUOUS = ("real", "positive")
_SHOWN = 6


class Column(Config):
    """One column.

    Attributes:
        name: as the table calls it.
        kind: of its values, see `KINDS`.
        dtype: type of the values in the table that the schema was made from, as pandas spells it; a categorical whose
            categories are in order is ``category[ordered]``.
        categories: values in the order of their codes 0, 1, ...; empty for numbers. The second of a binary column is
            the one whose probability is given.
        low: smallest number observed.
        high: largest number observed.
        step: spacing of the lattice that the numbers lie on, where they are rounded (0.01 for cents).
        missing: share of the rows without a value.
        reason: of the kind, in words.
    """

    name: str
    kind: Kind
    dtype: str = "float64"
    categories: tuple[Category, ...] = ()
    low: float | None = None
    high: float | None = None
    step: Annotated[float, Field(gt=0)] | None = None
    missing: Annotated[float, Field(ge=0, le=1)] = 0.0
    reason: str = ""

    @model_validator(mode="after")
    def _categories_of_the_kind(self) -> Self:
        count = len(self.categories)
        if self.kind not in CODED and count:
            raise ValueError(f"column {self.name!r} is {self.kind} and has no categories, got {count}")
        if self.kind in CODED and count < 2:
            raise ValueError(f"column {self.name!r} is {self.kind} and requires at least 2 categories, got {count}")
        if self.kind == "binary" and count != 2:
            raise ValueError(f"column {self.name!r} is binary and requires 2 categories, got {count}")
        if len(set(self.categories)) != count:
            raise ValueError(f"column {self.name!r} names a category twice: {listed(self.categories)}")
        return self

    @property
    def num_classes(self) -> int:
        """Number of categories; 0 for numbers."""
        return len(self.categories)

    @property
    def extent(self) -> str:
        """Range or categories, in words."""
        if self.categories:
            return (" < " if self.kind == "ordinal" else ", ").join(_some(self.categories))
        if self.low is None or self.high is None:
            return ""
        rounded = "" if self.step is None else f", steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{rounded}"

    def encode(self, series: "Series[Any]") -> Values:
        """Values as numbers: categories become codes, what is missing NaN.

        Args:
            series: the column of a table.

        Returns:
            Shape ``(datum,)``.

        Raises:
            ValueError: a value that the kind cannot hold, or a category that is not known; the message names column,
                row and value, and what to do.
        """
        return self._codes(series) if self.kind in CODED else self._numbers(series)

    def _codes(self, series: "Series[Any]") -> Values:
        import pandas as pd

        known = {value: code for code, value in enumerate(self.categories)}
        places, levels = pd.factorize(series)
        codes = np.full(len(levels) + 1, np.nan)  # the last is what a missing value, place -1, takes
        for place, value in enumerate(levels):
            level = scalar(value)
            if level not in known:
                row = int(np.flatnonzero(places == place)[0])
                raise ValueError(
                    f"column {self.name!r} has the unknown category {level!r} in row {row}; known are "
                    f"{listed(self.categories)}: map it to one of them, make it missing, or fit with data that have it"
                )
            codes[place] = known[level]
        return codes[places]

    def _numbers(self, series: "Series[Any]") -> Values:
        values = numbers(self.name, series)
        observed = ~np.isnan(values)
        refuse = unfit(self.kind, values, observed)
        if refuse is not None:
            wrong, required, way = refuse
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"column {self.name!r} is {self.kind} and requires {required}, got {values[row]:g} in row {row}"
                f"{f' (and {wrong.sum() - 1} more)' if wrong.sum() > 1 else ''}; {way}"
            )
        return values

    def decode(self, values: Values) -> "Series[Any]":
        """Numbers as values of the original type: codes as categories, NaN as missing, whole numbers rounded.

        Where that type cannot hold them, they are 64-bit integers; truth values described as numbers become floats.

        Args:
            values: shape ``(datum,)``; codes are rounded.

        Raises:
            ValueError: a code that is that of no category.
        """
        import pandas as pd

        values = np.asarray(values, dtype=np.float64)
        observed = ~np.isnan(values)
        if self.kind in CODED:
            codes = np.where(observed, values, 0).round().astype(np.int64)
            if codes.size and not 0 <= codes.min() <= codes.max() < self.num_classes:
                wrong = codes.min() if codes.min() < 0 else codes.max()
                raise ValueError(f"column {self.name!r} has no category of code {wrong}; it has {self.num_classes}")
            if self.dtype.startswith("category"):
                held = pd.Categorical.from_codes(
                    np.where(observed, codes, -1), list(self.categories), ordered=self.dtype == "category[ordered]"
                )
                return pd.Series(held, name=self.name)
            cells = np.empty(self.num_classes, dtype=object)
            cells[:] = self.categories
            column = pd.Series(cells[codes], name=self.name, dtype=object).where(observed, None)
            return typed(column, self.dtype, bool(observed.all()))
        column, dtype = pd.Series(self._rounded(values), name=self.name), self.dtype
        if pd.api.types.is_integer_dtype(self._type()):
            column = column.round()
            if self.kind == "positive":
                column = column.clip(lower=1)
            if not within(column, self._type()):
                dtype = "int64"  # a value that is drawn or averaged may lie beyond what the table's type holds
        elif pd.api.types.is_bool_dtype(self._type()):
            dtype = "float64"
        return typed(column, dtype, bool(observed.all()))

    def _rounded(self, values: Values) -> Values:
        """Numbers that float32 holds on the lattice of the column, as float64 has them there."""
        if self.step is None:
            return values
        decimals = next((k for k in range(7) if abs(self.step * 10**k - round(self.step * 10**k)) < 1e-6), 7)
        nearest = np.round(np.round(values / self.step) * self.step, decimals)
        with np.errstate(invalid="ignore"):
            same = np.abs(values - nearest) <= 2 * np.finfo(np.float32).eps * np.abs(nearest)
        return np.where(same, nearest, values)

    def _type(self) -> Any:
        import pandas as pd

        return pd.api.types.pandas_dtype(self.dtype)


class Schema(Config):
    """Columns of a table in the order of its numbers, and which columns were left out, and why.

    ``Schema(**json)`` reads what ``schema.model_dump(mode="json")`` wrote.

    Attributes:
        columns: those that are described.
        left_out: reason by name.
    """

    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    left_out: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = self.names
        twice = repeated(names)
        if twice is not None:
            raise ValueError(f"two columns are called {twice!r}; rename one")
        return self

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    @property
    def discrete(self) -> bool:
        """Whether log densities of a row are of probabilities alone."""
        return not any(column.kind in CONTINUOUS for column in self.columns)

    @property
    def space(self) -> Space:
        """What log densities of a row are densities of."""
        count = {kind: sum(column.kind == kind for column in self.columns) for kind in KINDS}

        def words(kinds: list[str]) -> str:
            return ", ".join(f"{count[kind]} {kind}" for kind in kinds if count[kind])

        dense, certain = words(list(CONTINUOUS)), words([kind for kind in KINDS if kind not in CONTINUOUS])
        parts = [f"density of {dense} in their own units"] if dense else []
        parts += [f"probability of {certain}"] if certain else []
        return Space(f"columns of a table: {' times '.join(parts)}")

    def encode(self, frame: "DataFrame") -> tuple[Values, Mask]:
        """A table as numbers.

        Args:
            frame: has these columns, in any order; others are passed over.

        Returns:
            Values ``(datum, column)``, NaN where there is none, and a mask of the same shape, true where there is one.

        Raises:
            ValueError: a column is not there, or holds what its kind cannot; see `Column.encode`.
        """
        series = columns_of(frame)
        absent = [name for name in self.names if name not in series]
        if absent:
            raise ValueError(
                f"the table lacks the column{'s' if len(absent) > 1 else ''} {listed(absent)}; it has "
                f"{listed(list(series))}"
            )
        values = np.stack([column.encode(series[column.name]) for column in self.columns], axis=1)
        return values, ~np.isnan(values)

    def decode(self, values: Any, mask: Any = None) -> "DataFrame":
        """Numbers as a table, with the categories and the types of the original.

        Whole numbers are rounded where the original has an integer type, which becomes a nullable one where a value
        is missing.

        Args:
            values: ``(datum, column)``; NaN is missing.
            mask: boolean, shape of ``values``; what is false is missing.

        Raises:
            ValueError: another number of columns, or a code that is that of no category.
        """
        import pandas as pd

        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise ValueError(f"values of shape (datum, {len(self.columns)}) expected, got {array.shape}")
        if mask is not None:
            array = np.where(np.asarray(mask, dtype=bool), array, np.nan)
        return pd.DataFrame({column.name: column.decode(array[:, k]) for k, column in enumerate(self.columns)})

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Name, kind, likelihood, range or categories, share missing, and reason of each column, as text."""
        return [
            (
                column.name,
                column.kind,
                KINDS[column.kind],
                column.extent,
                f"{column.missing:.1%}" if column.missing else "none",
                column.reason,
            )
            for column in self.columns
        ]

    def __str__(self) -> str:
        head = ("column", "kind", "likelihood", "range or categories", "missing", "reason")
        cells = [head, *self.rows()]
        width = [max(len(row[k]) for row in cells) for k in range(len(head))]
        lines = ["  ".join(text.ljust(width[k]) for k, text in enumerate(row)).rstrip() for row in cells]
        lines += [f"left out: {name!r}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)


def _some(categories: tuple[Category, ...]) -> list[str]:
    shown = [str(category) for category in categories[:_SHOWN]]
    return shown if len(categories) <= _SHOWN else [*shown, f"... ({len(categories)})"]
