"""What the columns of a table are: rules that are stated, and that a user overrides column by column.

1. No value, or one value alone: left out; there is nothing to learn. Dates and times: left out; they are numbers only
   once an origin and a unit are chosen.
2. Two values, of whatever type: ``binary``, the smaller (or first) is code 0.
3. Text, and pandas categoricals: ``category``; ``ordinal`` where the categories have an order. More than
   `MAX_CATEGORIES` of them, or fewer than two rows for each on average: left out, as they identify rows.
4. Whole numbers, in whatever type. Those that number the rows, and those that are all different in a column that is
   called an identifier, are left out. ``count`` are those from 0 to `vae_pyro.data.tables.rules.MAX_COUNT` with the
   mean and variance of a negative binomial distribution, and values where it has them; others of at most
   `vae_pyro.data.tables.rules.MAX_LEVELS` different values are ``ordinal``.
5. Other numbers, all above zero, whose skewness is above 1 and whose logarithms are less skewed: ``positive``.
6. Other numbers: ``real``.

Each column has the reason of its kind.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vae_pyro.data.tables.cells import Values, columns_of, listed, numbers, scalar, step_of
from vae_pyro.data.tables.rules import kind_of_numbers
from vae_pyro.data.tables.schema import CODED, CONTINUOUS, KINDS, Category, Column, Kind, Schema

if TYPE_CHECKING:
    from pandas import DataFrame, Series

type Kinds = Mapping[str, str | Sequence[Category]]

MAX_CATEGORIES = 100
DROP = "drop"
# A column whose spread is fewer steps of float32 than this, at its magnitude, cannot be fitted in float32.
_FEWEST_STEPS = 100


def infer(frame: "DataFrame", kinds: Kinds | None = None) -> Schema:
    """The schema of a table.

    Args:
        frame: a pandas table.
        kinds: kind by name of column, where the inferred one is not meant: a kind, ``drop`` to leave the column out, or
            the categories of an ordinal column from the lowest to the highest.

    Returns:
        The columns in the order of the table, and those that were left out with the reason.

    Raises:
        ValueError: a column that is not there, an unknown kind, a kind that cannot hold a value, values that are not
            scalars, numbers that float32 cannot resolve, or no column that is left.

    >>> import pandas as pd
    >>> print(infer(pd.DataFrame({"age": [31.5, 64.25, 47.0, 29.5], "smokes": [True, False, True, None]})))
    column  kind    likelihood  range or categories           missing  reason
    age     real    normal      29.5 to 64.25, steps of 0.25  none     fractions
    smokes  binary  Bernoulli   False, True                   25.0%    two values
    """
    series = columns_of(frame)
    kinds = {} if kinds is None else dict(kinds)
    for name, kind in kinds.items():
        _check(name, kind, list(series))
    columns: list[Column] = []
    left_out: dict[str, str] = {}
    for name, one in series.items():
        found = _describe(name, one, kinds.get(name))
        if isinstance(found, Column):
            columns.append(found)
        else:
            left_out[name] = found
    if not columns:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"no column of the table can be described{f' ({reasons})' if reasons else ''}")
    return Schema(columns=tuple(columns), left_out=left_out)


def parse_kind(text: str) -> tuple[str, str | list[str]]:
    """``age=real``, ``id=drop`` or ``size=small<medium<large`` as name and kind.

    Raises:
        ValueError: no ``=``, or an empty name or kind.

    >>> parse_kind("size=small<medium<large")
    ('size', ['small', 'medium', 'large'])
    """
    name, equals, kind = (piece.strip() for piece in text.rpartition("=") if text) if text else ("", "", "")
    if not equals or not name or not kind:
        raise ValueError(f"a kind is NAME=KIND, such as age=real or size=small<medium<large, got {text!r}")
    return name, [level.strip() for level in kind.split("<")] if "<" in kind else kind


def _check(name: str, kind: str | Sequence[Category], known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"kinds: the table has no column {name!r}; {hint}it has {listed(known)}")
    if isinstance(kind, str) and kind not in (*KINDS, DROP):
        raise ValueError(
            f"kinds: column {name!r} cannot be {kind!r}; choose from {', '.join(KINDS)}, {DROP}, or name the "
            "categories of an ordinal column in order"
        )


def _describe(name: str, series: "Series[Any]", asked: str | Sequence[Category] | None) -> Column | str:
    """The column, or why it is left out."""
    if asked == DROP:
        return "as asked"
    observed = series.dropna()
    missing = 1 - len(observed) / max(len(series), 1)
    if observed.empty:
        return _or_refuse(name, asked, "no value is observed")
    dates = _dates(observed)
    if dates and asked is None:
        return f"{dates}; make them numbers (days since the first) or categories (the month) to keep them"
    return _observed(name, series, asked, missing, dates)


def _observed(
    name: str, series: "Series[Any]", asked: str | Sequence[Category] | None, missing: float, dates: str
) -> Column | str:
    observed = series.dropna()
    dtype, series, numeric = _plain(name, series, observed, dates)
    observed = series.dropna()
    levels = _levels(observed)
    if len(levels) < 2 and isinstance(asked, str | None):
        return _or_refuse(name, asked, f"every value is {levels[0]!r}")
    about: dict[str, Any] = {"name": name, "dtype": dtype, "missing": missing, "reason": "as asked"}
    if asked is None:
        asked, about["reason"] = (
            kind_of_numbers(name, numbers(name, observed), levels, len(series))
            if numeric
            else _kind_of_labels(series, levels)
        )
        if asked is None:
            return str(about["reason"])
    if not isinstance(asked, str) or asked in CODED:
        categories = _categories(name, series, levels, asked)
        kind = asked if isinstance(asked, str) else "ordinal"
        column = Column(**about, kind=cast(Kind, kind), categories=categories)
        column.encode(series)  # a category that the user did not name is refused here
        return column
    values = _numbers(name, series, asked, numeric)
    step = step_of(values, series) if asked in CONTINUOUS else None
    column = Column(**about, kind=cast(Kind, asked), low=values.min(), high=values.max(), step=step)
    column.encode(series)
    _resolved(column, values)
    return column


def _or_refuse(name: str, asked: str | Sequence[Category] | None, reason: str) -> str:
    if asked is None:
        return f"{reason}; there is nothing to learn"
    raise ValueError(f"column {name!r} cannot be {asked!r}: {reason}; leave it out with {name}={DROP}")


def _dates(observed: "Series[Any]") -> str:
    """What dates or times a column holds, in words; empty where it holds none."""
    from pandas.api import types

    if isinstance(observed.dtype.type, type) and types.is_bool_dtype(observed.dtype):
        return ""
    found = str(types.infer_dtype(observed, skipna=True))
    dated = found.startswith(("date", "time", "period", "interval"))
    return f"{found} values such as {str(observed.iloc[0])!r} have no likelihood" if dated else ""


def _plain(name: str, series: "Series[Any]", observed: "Series[Any]", dates: str) -> tuple[str, "Series[Any]", bool]:
    """Type of a column in words, its values without exotic containers, and whether they are numbers.

    Raises:
        ValueError: dates, or values that are no scalars.
    """
    import pandas as pd
    from pandas.api import types

    if str(series.dtype).startswith("dictionary"):  # Arrow's name for it, which pandas cannot read back
        series = series.array.__arrow_array__().to_pandas()
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        _scalars(name, dtype.categories.to_series())
        return ("category[ordered]" if dtype.ordered else "category"), series, False
    if types.is_bool_dtype(dtype):
        return str(dtype), series, False
    found = str(pd.api.types.infer_dtype(observed, skipna=True))
    if dates:
        raise ValueError(
            f"column {name!r}: {dates}; make them numbers (days since the first), categories (the month), or leave "
            f"them out with {name}={DROP}"
        )
    if found == "decimal":
        return "float64", series.astype("float64"), True
    numeric = types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)
    if numeric or found in ("integer", "floating", "mixed-integer-float"):
        return str(dtype), series, True
    _scalars(name, observed)
    return str(dtype), series, False


def _scalars(name: str, observed: "Series[Any]") -> None:
    for value in observed.unique() if observed.dtype != object else observed:
        if not isinstance(scalar(value), bool | int | float | str):
            raise ValueError(
                f"column {name!r} holds {type(value).__name__} such as {str(value)[:40]!r}, for which there is no "
                f"likelihood; take it apart into numbers or text, or leave it out with {name}={DROP}"
            )


def _levels(observed: "Series[Any]") -> list[Any]:
    """The different values, in order."""
    import pandas as pd

    if isinstance(observed.dtype, pd.CategoricalDtype):
        seen = set(observed.cat.codes)
        return [scalar(value) for code, value in enumerate(observed.cat.categories) if code in seen]
    found = [scalar(value) for value in observed.unique()]
    try:
        return sorted(found)
    except TypeError:  # text beside numbers
        return sorted(found, key=lambda value: (isinstance(value, str), str(value)))


def _kind_of_labels(series: "Series[Any]", levels: list[Any]) -> tuple[str | None, str]:
    import pandas as pd

    rows = int(series.notna().sum())
    ordered = isinstance(series.dtype, pd.CategoricalDtype) and series.dtype.ordered
    if len(levels) == 2:
        return "binary", "two values"
    if len(levels) > MAX_CATEGORIES or 2 * len(levels) > rows:
        return None, (
            f"{len(levels):,} different values in {rows:,} rows identify rather than describe; to keep them, choose "
            "category, or make them fewer"
        )
    return ("ordinal", "categories in order") if ordered else ("category", "names")


def _categories(
    name: str, series: "Series[Any]", levels: list[Any], asked: str | Sequence[Category]
) -> tuple[Category, ...]:
    """Values in the order of their codes."""
    import pandas as pd

    if not isinstance(asked, str):
        spelled = {str(level): level for level in levels}  # a command line knows text alone
        return tuple(level if level in levels else spelled.get(str(level), level) for level in asked)
    if isinstance(series.dtype, pd.CategoricalDtype):
        if asked == "ordinal" and not series.dtype.ordered:
            raise ValueError(_unordered(name, levels))
        declared = [scalar(value) for value in series.dtype.categories]
        return tuple(levels if asked == "binary" else declared)
    if asked == "ordinal" and any(isinstance(level, str) for level in levels):
        raise ValueError(_unordered(name, levels))
    if asked == "binary" and len(levels) != 2:
        raise ValueError(f"column {name!r} is binary and requires 2 values, got {len(levels)}: {listed(levels)}")
    return tuple(levels)


def _unordered(name: str, levels: list[Any]) -> str:
    order = "<".join(str(level) for level in levels)
    return (
        f"column {name!r} is ordinal, but its order is not known; name it, from the lowest: {name}={order}, for example"
    )


def _numbers(name: str, series: "Series[Any]", asked: str, numeric: bool) -> Values:
    if not numeric and str(series.dtype) not in ("bool", "boolean"):
        try:
            values = numbers(name, series)
        except ValueError as error:
            raise ValueError(f"{error}, or choose a kind other than {asked}") from None
    else:
        values = numbers(name, series)
    return values[~np.isnan(values)]


def _resolved(column: Column, values: Values) -> None:
    """Refuse numbers that float32, the type of a fit, cannot resolve."""
    if column.kind != "real":
        return
    spacing, spread = float(np.spacing(np.float32(np.abs(values).max()))), float(values.std())
    if spread < _FEWEST_STEPS * spacing:
        raise ValueError(
            f"column {column.name!r} lies at {values.mean():g} and varies by {spread:g}, which float32 resolves in "
            f"steps of {spacing:g}: subtract a constant, or leave it out with {column.name}={DROP}"
        )
