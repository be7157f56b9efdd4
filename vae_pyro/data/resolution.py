"""Columns of training data from which nothing can be learned: those without a value, or far from zero."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vae_pyro.data.split import Split

type Array = np.ndarray[Any, Any]

# A column whose standard deviation is fewer steps of the type than this, at its magnitude, cannot be fitted in it.
FEWEST_STEPS = 100
# Below so many steps rounding is no longer negligible beside noise of a few percent of the spread.
_FINE_STEPS = 10_000
_SHOWN = 8
_ROWS, _FEWEST_ROWS, _NUMBERS = 20_000, 200, 1 << 23


def steps_of(values: Array, dtype: type[np.floating[Any]] = np.float32) -> Array:
    """Standard deviation of each column in units of the spacing of a type at its magnitude, ``(column,)``.

    A column that varies by no more than rounding in float64 is constant, and has infinitely many.

    Args:
        values: ``(datum, column)``, float64; NaN is not observed.
        dtype: of a fit.
    """
    observed = ~np.isnan(values)
    count = np.maximum(observed.sum(0), 1)
    magnitude = np.abs(np.where(observed, values, 0.0)).max(0)
    deviation = np.where(observed, values - _means(values), 0.0)
    spread = np.sqrt((deviation**2).sum(0) / count)
    low, high = np.where(observed, values, np.inf).min(0), np.where(observed, values, -np.inf).max(0)
    constant = high - low <= 8 * np.spacing(magnitude)  # -inf where nothing is observed
    with np.errstate(over="ignore"):
        spacing = np.spacing(magnitude.astype(dtype)).astype(np.float64)
    return np.where(constant | ~np.isfinite(spacing), np.inf, spread / spacing)


def offsets(values: Array) -> Array:
    """What to subtract from each column so that float32 resolves it finely; 0 where it does so already, ``(column,)``.

    Of whole numbers it is a whole number, so that they stay such.

    Args:
        values: ``(datum, column)``, float64; NaN is not observed.
    """
    mean = _means(values)
    integral = (np.isnan(values) | (values == np.round(values))).all(0)
    return np.where(steps_of(values) < _FINE_STEPS, np.where(integral, np.round(mean), mean), 0.0)


def require_resolution(split: Split, dtype: torch.dtype, names: Sequence[str] | None = None) -> None:
    """Refuse vectors of numbers that the type of a fit cannot resolve; at most 20,000 random data are looked at.

    Args:
        split: the training data.
        dtype: of the fit.
        names: of the columns, where they have names.

    Raises:
        ValueError: the message names the column, where it lies and how it varies.
    """
    if len(split.x_shape) != 1 or split.draw != "none" or split.dtype in (torch.uint8, torch.bool):
        return
    rows = min(_ROWS, max(_NUMBERS // split.x_shape[0], _FEWEST_ROWS))
    some = split.sample(rows, 0) if len(split) > rows else split.take(slice(None))
    values = some.stored(slice(None)).double().cpu().numpy()
    if some.mask is not None:
        values = np.where(some.mask.cpu().numpy(), values, np.nan)
    kind = np.float64 if dtype == torch.float64 else np.float32
    steps = steps_of(values, kind)
    bad = np.flatnonzero(steps < FEWEST_STEPS)
    if not len(bad):
        return
    first = int(bad[0])
    column = values[:, first]
    more = f" (and {len(bad) - 1} more columns)" if len(bad) > 1 else ""
    raise ValueError(
        f"column {_called(first, names)} lies at {np.nanmean(column):g} and varies by {np.nanstd(column):g}, which "
        f"{kind.__name__} resolves in {steps[first]:.2g} steps, at least {FEWEST_STEPS} expected{more}: subtract "
        "a constant or its mean in float64, or leave it out"
    )


def require_observed(split: Split, names: Sequence[str] | None = None) -> None:
    """Refuse columns of a table that no datum has: nothing of them can be learned, and what is drawn is arbitrary.

    Elements of an array may be hidden from all data on purpose, by its mask.

    Args:
        split: the training data.
        names: of the columns; ``None`` where they have none.

    Raises:
        ValueError: the message names them.
    """
    if names is None or split.mask is None or len(split.x_shape) != 1:
        return
    empty = (~split.mask.any(0)).nonzero().flatten().tolist()
    if empty:
        shown = ", ".join(_called(column, names) for column in empty[:_SHOWN])
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        raise ValueError(
            f"no training datum has a value in column{'s' if len(empty) > 1 else ''} {shown}{more}: there is nothing "
            "to learn; leave them out"
        )


def _called(column: int, names: Sequence[str] | None) -> str:
    return repr(names[column]) if names is not None and column < len(names) else str(column)


def _means(values: Array) -> Array:
    observed = ~np.isnan(values)
    total: Array = np.where(observed, values, 0.0).sum(0) / np.maximum(observed.sum(0), 1)
    return total
