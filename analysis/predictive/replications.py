"""What a tree holds of data and their replications: statistics, whole data sets, and weights of the guide's draws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from analysis.draws.datatree import COLUMNS, NO_DRAWS
from analysis.stats.importance import effective_sample_size
from analysis.stats.pareto_smoothing import MIN_DRAWS, good_k, pareto_smooth
from analysis.stats.test_statistics import canonical, measure
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]
type DataStatistic = Callable[[Array], float]
type Group = Literal["posterior_predictive", "prior_predictive"]

# Resampling from e effective draws makes the variance of replications too small by 1 / e; 20 keeps that within 5 %.
_LEAST_ESS = 20
# The guide is off where the weights cost a twentieth of the draws, and beyond mending where so many data fail.
_OFF, _BEYOND = 0.95, 0.05
_RESAMPLE_STREAM = 1


@dataclass(frozen=True, eq=False)
class Replications:
    """Data and data sets that were drawn to look like them.

    Attributes:
        draws: numbers of the draws, shape ``(draw,)``.
        observed: a statistic of each datum, ``(datum,)``, or the data themselves, ``(datum, *x_shape)``; NaN where not
            observed.
        values: the same of each draw, ``(draw, datum)`` or ``(draw, datum, *x_shape)``.
    """

    draws: Array
    observed: Array
    values: Array

    def column(self, place: int) -> "Replications":
        """One column of data ``(datum, column)``, as the statistic of each datum."""
        return Replications(self.draws, self.observed[:, place].astype(float), self.values[..., place].astype(float))


@dataclass(frozen=True, eq=False)
class Weights:
    """How draws of the guide become draws of the posterior.

    Attributes:
        weight: of each draw, columns summing to 1, shape ``(draw, datum)``; ``None`` where draws count alike.
        chosen: for each replication and datum a draw, picked with its weight and independently, same shape.
        worth: harmonic mean over data of the effective number of draws.
        note: what a reader has to know of them; empty where nothing.
    """

    weight: Array | None
    chosen: Array | None
    worth: float
    note: str = ""


def measured(tree: xr.DataTree, group: Group, statistic: str) -> Replications:
    """A statistic of each datum, in all draws where the tree was measured by it, else in those that it keeps whole.

    Raises:
        ValueError: an unknown statistic, or a tree without such draws.
    """
    name = canonical(statistic)
    of_draws, of_data = (node(tree, f"predictive_statistics/{part}") for part in (group, "observed_data"))
    if of_draws is not None and of_data is not None and name in of_draws:
        values = of_draws[name].stack(sample=("chain", "draw")).transpose("sample", "datum")
        return Replications(values["draw"].values, of_data[name].values.astype(float), values.values.astype(float))
    kept = whole(tree, group)
    event_dim = kept.observed.ndim - 1
    # One replication at a time, since measuring copies.
    values = np.stack([measure(one, [name], event_dim=event_dim)[name] for one in kept.values])
    return Replications(kept.draws, measure(kept.observed, [name], event_dim=event_dim)[name], values)


def whole(tree: xr.DataTree, group: Group) -> Replications:
    """The data sets that the tree keeps whole, NaN where the data are not observed.

    Raises:
        ValueError: it keeps none.
    """
    there = node(tree, group)
    if there is None:
        option = "without predictive=False" if group == "posterior_predictive" else "with prior_predictive=500"
        reason = tree.attrs.get(NO_DRAWS)
        raise ValueError(f"the tree has no {group}{f': {reason}' if reason else f'; make it {option} in to_datatree'}")
    kept = there["x"].stack(sample=("chain", "draw")).transpose("sample", "datum", ...)
    data = tree["observed_data"]["x"].values
    hidden = np.isnan(data)
    return Replications(
        kept["draw"].values, data, np.where(hidden, np.nan, kept.values) if hidden.any() else kept.values
    )


def column_names(tree: xr.DataTree) -> list[str]:
    """Names of columns of different units, which are compared one by one; none where elements share their unit."""
    data = node(tree, "observed_data")
    return [str(name) for name in data[COLUMNS].values] if data is not None and COLUMNS in data.coords else []


def node(tree: xr.DataTree, path: str) -> xr.DataTree | None:
    """A group of a tree, or ``None`` where there is none."""
    for part in path.split("/"):
        if part not in tree.children:
            return None
        tree = tree.children[part]
    return tree


def guide_weights(tree: xr.DataTree, draws: Array, weighted: bool | None, seed: int) -> Weights:
    """Pareto smoothed importance weights of each datum's draws, normalised, and a resampling by them.

    Args:
        tree: of `analysis.to_datatree`.
        draws: numbers of the draws to weight.
        weighted: ``None`` weights where the guide is off (the weights cost more than a twentieth of the draws) and can
            be trusted for at least 95 % of the data; ``True`` weights in any case.
        seed: of the resampling.

    Raises:
        ValueError: too few draws, or no weights, where they are asked for.

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646
        Gordon, Salmond & Smith 1993, Novel approach to nonlinear/non-Gaussian Bayesian state estimation, sec. 3
        (resampling). doi:10.1049/ip-f-2.1993.0015
    """
    stats = node(tree, "sample_stats")
    there = stats is not None and "log_weight" in stats and len(draws) >= MIN_DRAWS
    if weighted and not there:
        raise ValueError(
            f"weights require sample_stats/log_weight and at least {MIN_DRAWS} draws, here are {len(draws)}; raise "
            "num_draws in to_datatree, or choose a statistic that it measures in all draws"
        )
    if weighted is False or stats is None or not there:
        return Weights(None, None, float(len(draws)))
    log_weight = stats["log_weight"].sel(draw=np.unique(draws)).stack(sample=("chain", "draw"))
    smoothed, k = pareto_smooth(log_weight.transpose("sample", "datum").values)
    weight = np.exp(smoothed)
    ess = effective_sample_size(smoothed)
    worth = float(len(ess) / (1 / ess).sum())
    limit = good_k(len(weight))
    bad = int((~((k <= limit) & (ess >= _LEAST_ESS))).sum())
    trouble = (
        f"for {bad:,} of {len(ess):,} data the weights cannot be trusted (k-hat above {limit:.2f} or fewer than "
        f"{_LEAST_ESS} effective draws; the median is {np.median(ess):.0f} of {len(weight):,})"
    )
    if weighted is None and worth >= _OFF * len(weight):
        return Weights(None, None, float(len(weight)))
    if weighted is None and bad > _BEYOND * len(ess):
        note = f"the guide is off, and {trouble}: replications are the guide's own; raise num_draws or widen the guide"
        return Weights(None, None, float(len(weight)), note)
    return Weights(weight, resample(weight, seed), worth, f"{trouble}: raise num_draws" if bad else "")


def resample(weight: Array, seed: int) -> Array:
    """For each replication and datum the number of a draw, picked with its weight, independently.

    Args:
        weight: ``(draw, datum)``, not negative.
        seed: of the picks.

    Returns:
        As many replications as draws, shape of ``weight``.
    """
    rng = np.random.default_rng(derive_seed(seed, _RESAMPLE_STREAM))
    upto = np.cumsum(weight, axis=0)
    uniform = rng.random(weight.shape) * upto[-1]
    columns = [np.searchsorted(edges, u, side="right") for edges, u in zip(upto.T, uniform.T, strict=True)]
    return np.minimum(np.stack(columns, 1), len(weight) - 1)
