"""Whether the elements of vectors share their unit."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# Beyond these, elements are not described one by one.
MOST_COLUMNS = 200
# Ratio of the largest to the smallest standard deviation from which the units of columns are taken to differ.
_RATIO = 10.0


def units_differ(values: Array) -> bool:
    """Whether standard deviations of columns differ by more than a factor of 10, constants apart; in at most 200.

    Args:
        values: ``(datum, column)``, NaN where not observed; data of other shapes share their unit.

    >>> units_differ(np.array([[0.0, 0.0], [1.0, 1000.0]])), units_differ(np.array([[0.0, 0.0], [1.0, 5.0]]))
    (True, False)
    """
    if values.ndim != 2 or not 2 <= values.shape[1] <= MOST_COLUMNS:
        return False
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(0), 1)
    known = np.where(seen, values, 0.0).astype(np.float64)
    centred = np.where(seen, known - known.sum(0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(0) / count)
    spread = spread[spread > 0]
    return len(spread) > 1 and bool(spread.max() > _RATIO * spread.min())
