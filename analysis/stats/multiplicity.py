"""Multiple comparisons: adjusted p-values that control the family-wise error rate."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def holm(p_values: Array) -> Array:
    """Holm's step-down adjusted p-values, in the order given, float64.

    Rejecting where the adjusted value is at most alpha keeps the family-wise error rate at alpha under any dependence
    of the tests; comparisons with one baseline share its errors. It rejects every hypothesis that Bonferroni's rule
    rejects.

    Args:
        p_values: ``(comparison,)``, possibly empty.

    Raises:
        ValueError: another shape, or a value outside [0, 1] (the message gives the first).

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1:
        raise ValueError(f"p_values must have shape (comparison,), got {p_values.shape}; adjust one family at a time")
    bad = np.flatnonzero(~((p_values >= 0) & (p_values <= 1)))
    if len(bad):
        raise ValueError(
            f"p_values[{bad[0]}] is {p_values[bad[0]]}, outside [0, 1]; leave out comparisons without a p-value"
        )
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted
