"""Data as the elements that test statistics are computed from, NaN where they are not observed."""

from functools import cached_property
from math import prod
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


class Elements:
    """Data, and what several statistics need of them, computed once.

    Args:
        x: ``(*batch, *event)``; NaN where an element is not observed.
        event_dim: number of event dimensions, at least 1.

    Attributes:
        flat: ``(*batch, element)``, zero where an element is not observed.
        seen: boolean, shape of ``flat``, true where observed; ``None`` where everything is.
        event: shape of one datum.

    Raises:
        ValueError: fewer dimensions than ``event_dim``, or no event dimension.
    """

    def __init__(self, x: Array, event_dim: int) -> None:
        x = np.asarray(x)
        if event_dim < 1 or x.ndim < event_dim:
            raise ValueError(f"data with {event_dim} event dimensions (at least 1) required, got shape {x.shape}")
        self.event = x.shape[x.ndim - event_dim :]
        flat = x.reshape(*x.shape[: x.ndim - event_dim], prod(self.event))
        if flat.dtype.kind != "f":
            flat = flat.astype(np.float64)
        hidden = np.isnan(flat)
        self.seen: Array | None = ~hidden if hidden.any() else None
        self.flat = flat if self.seen is None else np.where(hidden, flat.dtype.type(0), flat)

    @cached_property
    def count(self) -> Array:
        """Observed elements of each datum, float64; NaN where there are none, so that nothing is said about it."""
        if self.seen is None:
            return np.full(self.flat.shape[:-1], float(self.flat.shape[-1]))
        count = np.count_nonzero(self.seen, axis=-1).astype(np.float64)
        return np.where(count > 0, count, np.nan)

    @cached_property
    def total(self) -> Array:
        """Sum of the observed elements, float64; NaN where there are none."""
        return np.add.reduce(self.flat, axis=-1, dtype=np.float64) + 0 * self.count

    @cached_property
    def centred(self) -> Array:
        """Observed elements minus their mean, zero where not observed, shape of ``flat``."""
        mean = np.nan_to_num(self.total / self.count).astype(self.flat.dtype)[..., None]
        centred = self.flat - mean
        return centred if self.seen is None else np.where(self.seen, centred, centred.dtype.type(0))

    @cached_property
    def squares(self) -> Array:
        """Sum of squared deviations from the mean, float64; NaN where nothing is observed."""
        return np.vecdot(self.centred, self.centred).astype(np.float64) + 0 * self.count

    @cached_property
    def ordered(self) -> Array:
        """Elements in rising order, those that are not observed last, as infinity."""
        return np.sort(self.filled(np.inf), axis=-1)

    def filled(self, value: float) -> Array:
        """Elements, with ``value`` where they are not observed."""
        return self.flat if self.seen is None else np.where(self.seen, self.flat, self.flat.dtype.type(value))
