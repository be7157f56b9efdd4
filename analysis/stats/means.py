"""Means over data and their standard errors."""

from math import sqrt
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def standard_error(values: Array) -> float:
    """Standard error of the mean of independent values ``(datum,)``; NaN for a single one."""
    return float(values.std(ddof=1) / sqrt(len(values))) if len(values) > 1 else float("nan")


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean over data ``(datum,)`` and its standard error."""
    return float(values.mean()), standard_error(values)
