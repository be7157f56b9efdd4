"""The cells of one column: as numbers, as values of a type, and in the words of a message."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

type Values = np.ndarray[Any, np.dtype[np.float64]]
type Mask = np.ndarray[Any, np.dtype[np.bool_]]

_SHOWN = 12
_MOST_DECIMALS = 6


def numbers(name: str, series: "Series[Any]") -> Values:
    """The values of a column as float64, NaN where there is none.

    Raises:
        ValueError: a value that is not a number, or infinite; the message names column, row and value.
    """
    import pandas as pd

    observed = series.notna().to_numpy(dtype=bool)
    if isinstance(series.dtype, pd.ArrowDtype):  # whose decimals pandas cannot convert where some are missing
        series = series.astype(object)
    values = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = observed & ~np.isfinite(values)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"column {name!r} requires finite numbers, got {scalar(series.iloc[row])!r} in row {row}; replace it or "
            "make it missing"
        )
    return np.where(observed, values, np.nan)


def repeated(names: Sequence[str]) -> str | None:
    """The first of some names that is there more than once; ``None`` where each is there once."""
    counts = Counter(names)
    return next((name for name in names if counts[name] > 1), None)


def columns_of(frame: "DataFrame") -> "Mapping[str, Series[Any]]":
    """The columns of a table by name.

    Raises:
        ValueError: two have the same name.
    """
    import pandas as pd

    names = [str(name) for name in frame.columns]
    twice = repeated(names)
    if twice is not None:
        raise ValueError(f"two columns are called {twice!r}; rename one")
    series = {name: frame.iloc[:, place] for place, name in enumerate(names)}
    for name, one in series.items():
        if isinstance(one.dtype, pd.ArrowDtype) and pd.api.types.is_float_dtype(one.dtype):
            # Arrow distinguishes NaN from a missing value; here both are missing.
            series[name] = one.mask(one.ne(one).fillna(True))
    return series


def scalar(value: Any) -> Any:
    """A cell as a plain Python value."""
    return value.item() if isinstance(value, np.generic) else value


def listed(items: Any) -> str:
    """The first of some names or values, for a message."""
    shown = [repr(item) for item in list(items)[:_SHOWN]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def unfit(kind: str, values: Values, observed: Mask) -> tuple[Mask, str, str] | None:
    """Numbers that a kind cannot hold: which, what it requires, and what to do."""
    with np.errstate(invalid="ignore"):
        if kind == "positive":
            wrong, required, way = observed & ~(values > 0), "numbers above zero", "choose real, or make them missing"
        elif kind == "count":
            wrong = observed & ~((values >= 0) & (values == np.round(values)))
            required, way = "whole numbers from 0 up", "choose real or positive, or correct them"
        else:
            return None
    return (wrong, required, way) if wrong.any() else None


def typed(column: "Series[Any]", dtype: str, complete: bool) -> "Series[Any]":
    """A column in its type, or in the nullable one where that cannot say that a value is missing."""
    import pandas as pd

    stored = pd.api.types.pandas_dtype(dtype)
    if not complete and isinstance(stored, np.dtype):
        if stored.kind in "iu":
            name = stored.name.replace("uint", "UInt") if stored.kind == "u" else stored.name.replace("int", "Int")
            stored = pd.api.types.pandas_dtype(name)
        elif stored.kind == "b":
            stored = pd.BooleanDtype()
    return column.astype(stored)


def within(column: "Series[Any]", dtype: Any) -> bool:
    """Whether an integer type holds all of the whole numbers that are there."""
    kind = getattr(dtype, "numpy_dtype", dtype)  # of a nullable type
    info = np.iinfo(kind)
    return not column.notna().any() or bool(info.min <= column.min() and column.max() <= info.max)


def skewness(values: Values) -> float:
    """Third standardised moment; 0 where the values do not vary."""
    deviation = values - values.mean()
    variance = float((deviation**2).mean())
    return float((deviation**3).mean()) / variance**1.5 if variance > 0 else 0.0


def step_of(values: Values, series: "Series[Any]") -> float | None:
    """Spacing of the lattice of decimals that numbers lie on, or ``None`` where they lie on none."""
    precision = np.finfo(np.float32 if str(series.dtype).lower().startswith("float32") else np.float64).eps
    for decimals in range(_MOST_DECIMALS + 1):
        scaled = values * 10.0**decimals
        error = 4 * precision * float(np.abs(scaled).max())
        if error > 1e-2:
            return None
        whole = np.round(scaled)
        if (np.abs(scaled - whole) <= max(error, 1e-12)).all():
            step = int(np.gcd.reduce(np.abs(whole).astype(np.int64)))
            return step / 10**decimals if step else None
    return None
