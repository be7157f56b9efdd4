"""Columns whose units differ, so that a statistic over the elements of one datum has no meaning."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# Beyond these, elements are not described one by one, and units that differ are not assumed.
_MOST_COLUMNS = 200
# Ratio of the largest to the smallest standard deviation from which the units of columns are taken to differ.
_RATIO = 10.0


def columns_of(names: tuple[str, ...] | None, observed: Array) -> list[str] | None:
    """Names of the columns of data that are described column by column; ``None`` where elements share their unit.

    A table has names. Other vectors are taken for columns of different units where their standard deviations differ by
    more than a factor of 10, constants apart.

    Args:
        names: of the columns of a table; ``None`` for other data.
        observed: ``(datum, *x_shape)``, NaN where not observed.

    >>> columns_of(None, np.array([[0.0, 0.0], [1.0, 1000.0]]))
    ['x[0]', 'x[1]']
    """
    if names is not None:
        return list(names)
    if observed.ndim != 2 or not 2 <= observed.shape[1] <= _MOST_COLUMNS:
        return None
    seen = ~np.isnan(observed)
    count = np.maximum(seen.sum(0), 1)
    values = np.where(seen, observed, 0.0).astype(np.float64)
    centred = np.where(seen, values - values.sum(0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(0) / count)
    spread = spread[spread > 0]
    if len(spread) < 2 or spread.max() <= _RATIO * spread.min():
        return None
    return [f"x[{place}]" for place in range(observed.shape[1])]
