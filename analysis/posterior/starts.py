"""Annealing from several starts: chains that begin in one mode of a posterior do not find the others.

Every start gives a stochastic lower bound on log p(x), and the best bound of a datum is the nearest to the truth.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.posterior.bounds import Annealing
from analysis.stats.importance import log_evidence

type Array = np.ndarray[Any, Any]

# Standard errors by which a bound must exceed the first to replace it: by chance 1 time in 600 with errors from ten
# chains. Without a margin, the maximum of noisy bounds lies above the truth on average.
_MARGIN = 4.0


def highest(bounds: Sequence[Array], errors: Sequence[Array]) -> Array:
    """Which bound each datum takes: the first, unless another is higher by more than four standard errors.

    Args:
        bounds: stochastic lower bounds, each ``(datum,)``; NaN and -inf are never taken for another.
        errors: their standard errors.

    Returns:
        Indices into ``bounds``, ``(datum,)``: the highest of those that are significantly higher than the first.
    """
    values = np.nan_to_num(np.stack(bounds), nan=-np.inf, neginf=-np.inf)
    spread = np.stack(errors)
    with np.errstate(invalid="ignore"):  # -inf - -inf
        excess = values - values[0] > _MARGIN * np.hypot(spread, spread[0])  # never, where an error is NaN
    excess[0] = True
    return np.asarray(
        np.where(excess, values, -np.inf).argmax(0) if len(values) > 1 else np.zeros(values.shape[1], int)
    )


def best_of(parts: Sequence[Annealing]) -> Annealing:
    """Of each datum the chains whose bound is best, see `highest`; the first where several are as good.

    Args:
        parts: of the same data, temperatures and number of chains.
    """
    if len(parts) == 1:
        return parts[0]
    index = highest([part.log_px for part in parts], [part.log_px_se for part in parts])
    log_weight, acceptance, step_size = (
        by_datum([getattr(part, name) for part in parts], index) for name in ("log_weight", "acceptance", "step_size")
    )
    start = f"best of {', '.join(part.start for part in parts)}"
    return Annealing(log_weight, acceptance, step_size, parts[0].temperatures, start)


def best_reverse(log_weights: Sequence[Array]) -> Array:
    """The reverse chains ``(chain, datum)`` of the start whose upper bounds are lowest on average over data.

    Not by datum: all chains of a datum leave from the same posterior draw, so that their spread does not show how far
    off they are. Where it lies in the mode that the start holds, the bound is too low, and as much too high elsewhere.
    """
    bounds = [float(-log_evidence(-weight)[0].mean()) for weight in log_weights]
    return log_weights[int(np.nan_to_num(bounds, nan=np.inf).argmin())]


def by_datum(values: Sequence[Array], index: Array) -> Array:
    """Of each datum the values of one of several arrays ``(..., datum)``."""
    return np.asarray(np.choose(index, values))
