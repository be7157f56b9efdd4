"""Held-out log predictive density: log p(x_i) of each datum by importance sampling, its errors, and comparisons.

What LOO is not. In a Bayesian model with draws of its parameters, the held-out density of x_i can be had without
refitting, by weighting draws with 1 / p(x_i | theta) (PSIS-LOO). A VAE has point estimates of its decoder's weights:
there is no posterior over parameters to leave a datum out of. Its z_i belongs to x_i alone, so leaving x_i out leaves
z_i its prior, and LOO's ``1 / mean_k [1 / p(x_i | z_i^k)]`` over draws of the posterior is the harmonic-mean estimate
of log p(x_i), whose variance is infinite in the common cases. ``az.loo`` on ``log_likelihood`` computes exactly that,
with k-hat above 1 nearly everywhere. So the criterion is log p(x_i) itself, on data that the fit did not see: the guide
is the proposal, ``log p(x_i) ~ log mean_k w_ik``, and k-hat shows for which data that holds.
"""

from typing import Any

import xarray as xr
from torch import Tensor

from analysis.density.result import ELPD, Array
from analysis.draws.weights import Fingerprint, Weighed, weigh
from analysis.stats.importance import Estimates, estimates, join
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike, as_pair


def elpd(tree: xr.DataTree) -> ELPD:
    """Held-out log predictive density from the ``log_weight`` of `analysis.to_datatree`.

    Raises:
        ValueError: the tree has no log weights, fewer than 25 draws, or a weight is NaN or +inf.
    """
    if "sample_stats" not in tree or "log_weight" not in tree["sample_stats"]:
        raise ValueError("the tree has no sample_stats/log_weight; make it with analysis.to_datatree")
    weight = tree["sample_stats"]["log_weight"].transpose("chain", "draw", "datum")
    digest = Fingerprint()
    if "observed_data" in tree:
        digest.update(tree["observed_data"]["x"].transpose("datum", ...).values)
    return _elpd(
        estimates(weight.values.reshape(-1, weight.sizes["datum"])),
        num_draws=weight.sizes["chain"] * weight.sizes["draw"],
        ids=tree["sample_stats"]["datum"].values,
        space=tree.attrs.get("space", "the values as given"),
        measure=tree.attrs.get("measure"),
        of=tree.attrs.get("of"),
        fingerprint=digest.value,
    )


def elpd_of(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_draws: int = 1000,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> ELPD:
    """Held-out log predictive density straight from a pair: as `elpd`, and no draws are kept.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, at least 25.
        seed: of the draws.
        mask: boolean, shape of ``x``, true where observed.
        y: classes that the programs are given, ``(datum,)``; densities are conditional on them, or, of structure
            ``m2``, joint.

    Raises:
        ValueError: fewer than 25 draws, data outside the support of the likelihood, or a weight that is NaN or +inf.
    """
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    digest = Fingerprint()

    def reduce(block: Weighed) -> Estimates:
        digest.update(block.x)
        return estimates(block.log_weight)

    return _elpd(
        join(weigh(pair, split, reduce, num_draws=num_draws, seed=seed)),
        num_draws=num_draws,
        ids=split.ids.cpu().numpy(),
        space=str(split.space),
        measure=as_pair(pair).measure,
        of=as_pair(pair).target(split),
        fingerprint=digest.value,
    )


def _elpd(found: Estimates, **about: Any) -> ELPD:
    return ELPD(
        pointwise=found.log_px,
        pointwise_mcse=found.log_px_mcse,
        pareto_k=found.pareto_k,
        rise=found.rise,
        smoothed=found.smoothed,
        elbo=found.elbo,
        upper=found.upper,
        **about,
    )


def to_elpd_data(tree: xr.DataTree) -> Any:
    """The held-out log predictive density as ArviZ's `ELPDData`, for ``az.plot_khat`` and ``az.compare``.

    It is `analysis.density.elpd`'s estimate of log p(x_i) and its k-hat, not PSIS-LOO: with point estimates of the
    decoder's weights there is nothing to leave one out of. ``p``, an effective number of parameters, is therefore NaN.

    Raises:
        ValueError: see `analysis.density.elpd`.
    """
    from arviz_stats.utils import ELPDData

    result = elpd(tree)
    datum = tree["sample_stats"]["datum"]
    return ELPDData(
        elpd=result.elpd,
        se=result.se,
        p=float("nan"),
        n_samples=result.num_draws,
        n_data_points=len(result.pointwise),
        scale="log",
        warning=result.num_bad > 0,
        good_k=result.good_k,
        elpd_i=xr.DataArray(result.pointwise, coords={"datum": datum}, dims="datum"),
        pareto_k=xr.DataArray(result.pareto_k, coords={"datum": datum}, dims="datum"),
    )
