"""Columns whose units differ, so that a statistic over the elements of one datum has no meaning."""

from typing import Any

import numpy as np

from vae_pyro.data.tables.units import units_differ

type Array = np.ndarray[Any, Any]


def columns_of(names: tuple[str, ...] | None, observed: Array) -> list[str] | None:
    """Names of the columns of data that are described column by column; ``None`` where elements share their unit.

    A table has names. Other vectors are taken for columns where `vae_pyro.data.tables.units.units_differ`.

    Args:
        names: of the columns of a table; ``None`` for other data.
        observed: ``(datum, *x_shape)``, NaN where not observed.

    >>> columns_of(None, np.array([[0.0, 0.0], [1.0, 1000.0]]))
    ['x[0]', 'x[1]']
    """
    if names is not None:
        return list(names)
    return [f"x[{place}]" for place in range(observed.shape[1])] if units_differ(observed) else None
