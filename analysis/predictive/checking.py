"""Predictive checks: do data drawn from the fitted model look like the data, by statistics of the user's choice?

Three kinds of replications, which differ in where the latents come from:

- ``posterior``: from the guide at the same data (importance weighted where the guide is off). A check of the likelihood
  given z. The data are used twice, so that under the true model p is closer to 1/2 than uniform numbers are: it is
  below ``a`` with probability at most ``2 a`` (Meng 1994), so that a small p is stronger evidence than it seems.
- ``prior``: from the prior, so that replications are draws of p(x). A check of prior and likelihood together. Under the
  true model p is uniform, when the weights were not fitted to these data.
- ``held_out``: new latents, from the prior, for data that the fit has not seen. With point estimates of the weights
  these are the replications of ``prior``; what differs is that the user vouches for the data, so that p is said to be
  uniform under the true model.

Data whose columns have different units are compared column by column: mean and standard deviation over data, and the
distribution over data. A statistic over the elements of one datum would add years to millimetres.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import xarray as xr

from analysis.draws.datatree import NO_DRAWS
from analysis.predictive.checks import KINDS, Kind, PredictiveCheck, PredictiveChecks
from analysis.predictive.replications import (
    DataStatistic,
    Group,
    Replications,
    Weights,
    column_names,
    guide_weights,
    measured,
    node,
    whole,
)
from analysis.stats.p_values import family_wise, randomised_pit
from analysis.stats.test_statistics import AGGREGATES, aggregate, canonical
from vae_pyro.core.isolation import derive_seed

_PIT_STREAM = 2


def predictive_check(
    tree: xr.DataTree,
    statistic: str | DataStatistic = "mean",
    *,
    kind: Kind = "posterior",
    over_data: str = "mean",
    weighted: bool | None = None,
    seed: int = 0,
) -> PredictiveCheck:
    """Compare a statistic of the data with that of replicated data sets.

    Args:
        tree: of `analysis.to_datatree`.
        statistic: a name of `analysis.stats.test_statistics.STATISTICS`, taken of each datum and then over data; or a
            function of a whole data set ``(datum, *x_shape)``, NaN where not observed, which sees the predictive draws
            that the tree keeps whole.
        kind: where the latents come from, see the module.
        over_data: ``mean`` or ``sd`` over data of a statistic by name.
        weighted: for ``posterior``, resample the draws of each datum with its Pareto smoothed importance weights, which
            turns draws of the guide into draws of the posterior. ``None`` does so where the guide is off and the
            weights are reliable, and notes it.
        seed: of the resampling and of the random part of the PIT.

    Raises:
        ValueError: an unknown name or kind, or a tree without what the check requires; the message gives the way out.

    References:
        Gelman, Meng & Stern 1996, Posterior predictive assessment of model fitness via realized discrepancies,
        Statistica Sinica 6.
        Meng 1994, Posterior predictive p-values, Annals of Statistics 22, sec. 3. doi:10.1214/aos/1176325622
        Czado, Gneiting & Held 2009, Predictive model assessment for count data, Biometrics 65, sec. 2.
        doi:10.1111/j.1541-0420.2009.01191.x
    """
    return _check(tree, [statistic], kind, over_data, weighted, seed)[0]


def predictive_checks(
    tree: xr.DataTree,
    statistics: Sequence[str] | None = None,
    *,
    kind: Kind = "posterior",
    over_data: str = "mean",
    weighted: bool | None = None,
    seed: int = 0,
) -> PredictiveChecks:
    """Compare several statistics at once, with p-values that allow for their number.

    Args:
        tree: see `predictive_check`, likewise ``kind``, ``over_data``, ``weighted``, ``seed``.
        statistics: names; ``None`` takes all that the tree was measured by. Where it was measured by none and has
            columns of different units, it takes the mean (``over_data`` is not used) and standard deviation over data
            of each column.

    Raises:
        ValueError: see `predictive_check`; no statistic.

    References:
        Westfall & Young 1993, Resampling-based multiple testing, sec. 2.3 (single-step minP).
    """
    if statistics is None:
        there = node(tree, "predictive_statistics/observed_data")
        statistics = [] if there is None else [str(name) for name in there.data_vars]
        names = [] if statistics else column_names(tree)
        if names and NO_DRAWS not in tree.attrs:
            return _joint(_check_columns(tree, names, kind, weighted, seed))
    if len(statistics) == 0:
        if NO_DRAWS in tree.attrs:
            raise ValueError(f"no predictive draws: {tree.attrs[NO_DRAWS]}")
        raise ValueError("no statistic to check; name some, or make the tree with to_datatree(..., statistics=...)")
    return _joint(_check(tree, statistics, kind, over_data, weighted, seed))


def _joint(checks: list[PredictiveCheck]) -> PredictiveChecks:
    observed = np.array([check.observed for check in checks])
    return PredictiveChecks(tuple(checks), *family_wise(observed, np.stack([check.replicated for check in checks], 1)))


def _check_columns(
    tree: xr.DataTree, names: list[str], kind: Kind, weighted: bool | None, seed: int
) -> list[PredictiveCheck]:
    """Mean and standard deviation over data of each column; the first has the ranks of single data."""
    group = _group_of(kind, weighted)
    drawn = whole(tree, group)
    weights = _weights(tree, drawn, kind, weighted, seed)
    about = _about(tree, group, kind, weights, len(drawn.draws))
    checks = []
    for place, name in enumerate(names):
        column = drawn.column(place)
        if np.isnan(column.observed).all():
            continue
        for over_data in AGGREGATES:
            found = _by_name(name, column, weights, over_data, seed)
            if over_data != AGGREGATES[0]:
                found["pit"] = None
            checks.append(PredictiveCheck(**found, **about))
    return checks


def _check(
    tree: xr.DataTree,
    statistics: Sequence[str | DataStatistic],
    kind: Kind,
    over_data: str,
    weighted: bool | None,
    seed: int,
) -> list[PredictiveCheck]:
    if over_data not in AGGREGATES:
        raise ValueError(f"unknown aggregate {over_data!r}; choose from {', '.join(AGGREGATES)}")
    group = _group_of(kind, weighted)
    weights: dict[tuple[int, ...], Weights] = {}
    checks = []
    for statistic in statistics:
        drawn = measured(tree, group, statistic) if isinstance(statistic, str) else whole(tree, group)
        key = tuple(drawn.draws.tolist())
        if key not in weights:
            weights[key] = _weights(tree, drawn, kind, weighted, seed)
        if isinstance(statistic, str):
            result = _by_name(canonical(statistic), drawn, weights[key], over_data, seed)
        else:
            result = _by_function(statistic, drawn, weights[key])
        checks.append(PredictiveCheck(**result, **_about(tree, group, kind, weights[key], len(key))))
    return checks


def _group_of(kind: Kind, weighted: bool | None) -> Group:
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    if weighted and kind != "posterior":
        raise ValueError(f"weights are for draws of the guide, and kind={kind!r} draws from the prior; leave them out")
    return "posterior_predictive" if kind == "posterior" else "prior_predictive"


def _weights(tree: xr.DataTree, drawn: Replications, kind: Kind, weighted: bool | None, seed: int) -> Weights:
    if kind != "posterior":
        return Weights(None, None, float(len(drawn.draws)))
    return guide_weights(tree, drawn.draws, weighted, seed)


def _about(tree: xr.DataTree, group: Group, kind: Kind, weights: Weights, used: int) -> dict[str, Any]:
    note = "; ".join(filter(None, [weights.note, _thinned(tree, group, used)]))
    return {"kind": kind, "weighted": weights.weight is not None, "num_draws": weights.worth, "note": note}


def _by_name(name: str, drawn: Replications, weights: Weights, over_data: str, seed: int) -> dict[str, Any]:
    observed, values = drawn.observed, drawn.values
    used = values if weights.chosen is None else np.take_along_axis(values, weights.chosen, 0)
    replicated, total = aggregate(used, over_data), float(aggregate(observed, over_data))
    if over_data == "mean":  # Cohen's d
        spread = sqrt((float(np.nanvar(observed)) + float(np.nanvar(used))) / 2)
    else:
        spread = (total + float(replicated.mean())) / 2
    difference = total - float(replicated.mean())
    seen = ~np.isnan(observed)
    noise = np.random.default_rng(derive_seed(seed, _PIT_STREAM)).random(len(observed))
    weight = None if weights.weight is None else weights.weight[:, seen]
    return {
        "name": name if over_data == "mean" else f"{over_data} over data of {name}",
        "observed": total,
        "replicated": replicated,
        "effect": difference / spread if spread > 0 else 0.0,
        "pit": randomised_pit(observed[seen], values[:, seen], noise[seen], weight),
    }


def _by_function(statistic: DataStatistic, drawn: Replications, weights: Weights) -> dict[str, Any]:
    data = range(drawn.values.shape[1])
    sets = drawn.values if weights.chosen is None else (drawn.values[draws, data] for draws in weights.chosen)
    return {
        "name": getattr(statistic, "__name__", "statistic"),
        "observed": float(statistic(drawn.observed)),
        "replicated": np.array([float(statistic(one)) for one in sets]),
    }


def _thinned(tree: xr.DataTree, group: Group, used: int) -> str:
    everything = tree.attrs.get("num_draws", used) if group == "posterior_predictive" else used
    return "" if used >= everything else f"of {everything:,} draws, the {used:,} that the tree keeps whole"
