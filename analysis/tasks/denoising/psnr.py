"""Peak signal-to-noise ratio of estimates whose truth is known, with its error over data."""

from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import Any

import numpy as np

from analysis.results.estimate import plus_minus

type Array = np.ndarray[Any, Any]

_TO_DECIBEL = 10 / log(10)


@dataclass(frozen=True, eq=False)
class PSNR:
    """Peak signal-to-noise ratio ``10 log10(data_range^2 / mean squared error)``, the error pooled over all data.

    Attributes:
        squared_error: mean over the elements of each datum, shape ``(datum,)``.
        data_range: full intensity of clean data, by which the ratio is defined.
        method: what made the estimates.
        monte_carlo: how much of the mean squared error is Monte Carlo error of the estimates, at most 1.
    """

    squared_error: Array
    data_range: float
    method: str = ""
    monte_carlo: float = 0.0

    @property
    def value(self) -> float:
        """In decibel; infinite where every estimate is exact."""
        error = float(self.squared_error.mean())
        return 10 * float(np.log10(self.data_range**2 / error)) if error > 0 else float("inf")

    @property
    def error(self) -> float:
        """Standard error over data, by the delta method; NaN for a single datum."""
        return self._error(self._influence)

    @property
    def _influence(self) -> Array:
        mean = self.squared_error.mean()
        return self.squared_error / mean if mean > 0 else np.ones_like(self.squared_error)

    def _error(self, influence: Array) -> float:
        n = len(influence)
        return float(_TO_DECIBEL * influence.std(ddof=1) / sqrt(n)) if n > 1 else float("nan")

    def minus(self, other: "PSNR") -> tuple[float, float]:
        """This ratio minus another on the same data, in decibel, and its standard error, in which the data cancel.

        Raises:
            ValueError: other data, or another data range.
        """
        if len(self.squared_error) != len(other.squared_error) or self.data_range != other.data_range:
            raise ValueError("ratios of the same data and data range are compared")
        if self.squared_error.mean() == other.squared_error.mean():
            return 0.0, self._error(self._influence - other._influence)
        return self.value - other.value, self._error(self._influence - other._influence)

    def __str__(self) -> str:
        return f"{self.method + ': ' if self.method else ''}PSNR {plus_minus(self.value, self.error, 'dB')}"


def psnr(clean: Array, estimate: Array, *, data_range: float, method: str = "", mean_se: Array | None = None) -> PSNR:
    """Peak signal-to-noise ratio of estimates of clean data.

    Args:
        clean: the truth, ``(datum, *x_shape)``.
        estimate: same shape.
        data_range: full intensity of clean data: 1, 16, 255. It is a convention, not an estimate from these data.
        method: what made the estimates.
        mean_se: Monte Carlo standard error of each, same shape.

    Raises:
        ValueError: other shapes, no data, a number among them that is not finite, or a data range that is not
            positive and finite.
    """
    truth, found = np.asarray(clean, np.float64), np.asarray(estimate, np.float64)
    if truth.shape != found.shape or truth.size == 0 or truth.ndim < 2:
        raise ValueError(
            f"clean data and estimates must have one shape (datum, *x_shape), got {truth.shape} and {found.shape}"
        )
    if not (data_range > 0 and isfinite(data_range)):
        raise ValueError(f"data_range is the full intensity of clean data, finite and above 0; got {data_range}")
    for name, values in (("clean data", truth), ("estimates", found)):
        # One NaN would make the error NaN, which is not above 0 and would count as exact.
        if not np.isfinite(values).all():
            raise ValueError(f"{name} are finite numbers, and {int((~np.isfinite(values)).sum())} of them are not")
    square = ((truth - found) ** 2).reshape(len(truth), -1).mean(1)
    share = 0.0
    if mean_se is not None and square.mean() > 0:
        share = min(float((np.asarray(mean_se, np.float64) ** 2).mean() / square.mean()), 1.0)
    return PSNR(square, float(data_range), method, share)
