"""Means over data and their standard errors."""

from math import sqrt
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def standard_error(values: Array) -> float:
    """Standard error of the mean of independent values ``(datum,)``; NaN for a single one, or an infinite one."""
    known = len(values) > 1 and np.isfinite(values).all()
    return float(values.std(ddof=1) / sqrt(len(values))) if known else float("nan")


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean over data ``(datum,)`` and its standard error."""
    return float(values.mean()), standard_error(values)
