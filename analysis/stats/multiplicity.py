"""Many comparisons at once: p-values and intervals whose chance of any false finding is bounded."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def holm(p_values: Array) -> Array:
    """Holm's step-down adjusted p-values, in the order given, float64.

    Rejecting where the adjusted value is at most alpha makes any false rejection at most alpha likely, whatever the
    dependence of the tests; comparisons with one baseline share its errors. It rejects all that Bonferroni's rule does.

    Args:
        p_values: ``(comparison,)``; none is fine. Leave out a comparison that has no p-value, the baseline with itself.

    Raises:
        ValueError: another shape, or a value that is not between 0 and 1 (the message gives the first).

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1:
        raise ValueError(f"p-values (comparison,) required, got shape {p_values.shape}; adjust one family at a time")
    bad = np.flatnonzero(~((p_values >= 0) & (p_values <= 1)))
    if len(bad):
        raise ValueError(
            f"p-value {bad[0]} is {p_values[bad[0]]}, not between 0 and 1; leave out comparisons that have none"
        )
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted


def simultaneous_level(level: float, num_comparisons: int) -> float:
    """The level of each interval at which all of them hold together with probability ``level`` or more (Bonferroni).

    An interval of this level that leaves out 0 has an adjusted p-value of `holm` of at most ``1 - level``. The converse
    does not hold: Holm's later steps reject more than Bonferroni's intervals show.

    Raises:
        ValueError: a level that is not between 0 and 1, or fewer than 1 comparison.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level:g}")
    if num_comparisons < 1:
        raise ValueError(f"at least 1 comparison required, got {num_comparisons}")
    return 1 - (1 - level) / num_comparisons
