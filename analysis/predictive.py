"""Predictive checks: do data drawn from the fitted model look like the data, by a statistic of the user's choice?"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import xarray as xr

type Array = np.ndarray[Any, Any]
type Statistic = Callable[[Array], float]

STATISTICS: dict[str, Statistic] = {
    "mean": lambda x: float(x.mean()),
    "sd": lambda x: float(x.std()),
    "min": lambda x: float(x.min()),
    "max": lambda x: float(x.max()),
    "zeros": lambda x: float((x == 0).mean()),
}


@dataclass(frozen=True)
class PredictiveCheck:
    """A statistic of the data among the same statistic of replicated data.

    Attributes:
        name: of the statistic.
        observed: its value for the data.
        replicated: its value for each replicated data set, shape ``(draw,)``.
    """

    name: str
    observed: float
    replicated: Array

    @property
    def p_value(self) -> float:
        """Share of replications at least as large as the data's, ties counted half; near 0 or 1 is a misfit."""
        above = (self.replicated > self.observed).mean()
        return float(above + 0.5 * (self.replicated == self.observed).mean())

    @property
    def p_value_mcse(self) -> float:
        """Monte Carlo standard error of `p_value`, never below that of half a draw."""
        draws = len(self.replicated)
        return max(sqrt(self.p_value * (1 - self.p_value) / draws), 0.5 / draws)

    def __str__(self) -> str:
        low, high = np.quantile(self.replicated, [0.025, 0.975])
        verdict = "the data look like draws of the model" if 0.025 <= self.p_value <= 0.975 else "the model misses this"
        return (
            f"predictive check of {self.name!r}: observed {self.observed:.4g}, "
            f"replicated 95 % in [{low:.4g}, {high:.4g}]\n"
            f"  p = {self.p_value:.3f} ± {self.p_value_mcse:.3f}: {verdict} (latents redrawn from the guide)"
        )


def predictive_check(tree: xr.DataTree, statistic: str | Statistic = "mean") -> PredictiveCheck:
    """Posterior predictive check: replicate the whole data set at each draw of the latents, and compare a statistic.

    The latents come from the guide at the same data, so that the check is of the likelihood given z; it is
    conservative, since the data are used twice (Gelman, Meng & Stern 1996).

    Args:
        tree: of `analysis.to_datatree`, with ``posterior_predictive``.
        statistic: a name of `STATISTICS`, or a function of an array ``(datum, *x_shape)``, which is NaN where the data
            are not observed.

    Raises:
        ValueError: an unknown name, or a tree without predictive draws.

    References:
        Gelman, Meng & Stern 1996, Posterior predictive assessment of model fitness via realized discrepancies,
        Statistica Sinica 6.
    """
    if isinstance(statistic, str):
        if statistic not in STATISTICS:
            raise ValueError(
                f"unknown statistic {statistic!r}; choose from {', '.join(STATISTICS)}, or pass a function"
            )
        name, function = statistic, STATISTICS[statistic]
    else:
        name, function = getattr(statistic, "__name__", "statistic"), statistic
    if "posterior_predictive" not in tree:
        raise ValueError(
            "the tree has no posterior_predictive: its draws would not fit in memory; pass fewer data or draws to "
            "to_datatree, or predictive=True"
        )
    drawn = tree["posterior_predictive"]["x"]
    replications = drawn.stack(sample=("chain", "draw")).transpose("sample", "datum", ...).values
    data = tree["observed_data"]["x"].values
    hidden = np.isnan(data)
    if hidden.any():
        # The statistics by name do not depend on the shape; a user's function gets NaN where nothing is observed.
        def see(x: Array) -> Array:
            return x[~hidden] if isinstance(statistic, str) else np.where(hidden, np.nan, x)

        data, replications = see(data), [see(replication) for replication in replications]
    values = np.array([function(replication) for replication in replications])
    return PredictiveCheck(name, function(data), values)
