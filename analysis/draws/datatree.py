"""From torch to xarray: draws, log densities, replications and data of a fitted pair as an ArviZ `DataTree`."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from analysis.draws.columns import columns_of
from analysis.draws.sampler import Draws, PosteriorDraws, prior_draws
from analysis.stats.test_statistics import STATISTICS, default_statistics, measure
from vae_pyro.core.files import atomically
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import Block, PairData, bind

type Array = np.ndarray[Any, Any]

_PREDICTIVE_BYTES = 512 * 1024**2
# Elements drawn from the prior where no number of data sets is asked for, and the least number of data sets then.
_PRIOR_ELEMENTS, _LEAST_PRIOR = 1_000_000_000, 100
_PIT_STREAM = 3
# Dimension whose coordinate has the names of columns of different units.
COLUMNS = "x_dim_0"
# Attribute of a tree without predictive draws: the reason.
NO_DRAWS = "no_predictive_draws"


def write_netcdf(data: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write netCDF through h5netcdf, whole or not at all; the same data give the same bytes."""
    with atomically(path) as temporary, warnings.catch_warnings():  # xarray adds a filter of its own at every opening
        data.to_netcdf(temporary, engine="h5netcdf")


def to_datatree(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_draws: int = 500,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
    predictive: bool | None = None,
    statistics: Sequence[str] | None = None,
    prior_predictive: int | None = None,
) -> xr.DataTree:
    """Draw from the guide at each datum and keep draws, log densities, predictive draws and data, with labels.

    Draws are independent; they stand in one chain, since ArviZ's functions require one. Dimensions are ``chain``,
    ``draw``, ``datum`` and those of the event; ``datum`` carries the ids, and ``label`` where there are labels. Groups:

    - ``posterior``: each latent site.
    - ``log_likelihood`` (``x``), ``log_prior`` (each latent site), ``sample_stats`` (``log_guide``, ``log_weight``):
      nats, float64; ``log_weight`` is the first plus the second minus the third of them, to the last bit.
    - ``observed_data`` (``x``): NaN where an element was not observed. Columns of different units
      (`analysis.draws.columns.columns_of`) have their names as the coordinate ``x_dim_0``.
    - ``posterior_predictive`` (``x``): drawn anew given each latent. All draws where they take at most 512 MiB, else as
      many as do, evenly thinned; ``draw`` has their numbers.
    - ``posterior_predictive_summary`` (``mean``, ``sd``, ``pit``): of each element of each datum, over all draws. The
      PIT is the rank of the observed value among its draws, spread at random over ties and the rank's own width. The
      latents were drawn given the same data, so that even under the true model it is nearer to 1/2 than uniform.
    - ``prior_predictive`` (``x``): data sets drawn from the prior, kept by the same rule as the posterior's.
    - ``predictive_statistics``: a tree of its own, which ArviZ's predictive plots take as it is, with each test
      statistic of each datum in all draws, in groups ``posterior_predictive``, ``prior_predictive``, ``observed_data``.

    Memory holds the latents, a few numbers for each draw and datum and for each element of the data, and twice 512 MiB;
    never all predictive draws.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum.
        seed: of the draws. Latents are those of `vae_pyro.evaluate` with the same seed and number of draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.
        predictive: ``None`` as above, ``True`` keeps every predictive draw whatever it takes, ``False`` draws none.
            Where the model of a pair cannot draw x, ``None`` draws none, and the tree's attribute
            ``no_predictive_draws`` gives the reason.
        statistics: names of `analysis.stats.test_statistics.STATISTICS`; ``None`` takes those that suit the shape of
            the data, and none for columns of different units, whose predictive draws are compared column by column.
        prior_predictive: data sets to draw from the prior, 0 for none; ``None`` draws ``num_draws``, or as many as have
            1e9 elements if that is less, but then not fewer than 100.

    Returns:
        The tree; `write_netcdf` saves it, as do its own ``to_netcdf`` and ``to_zarr``.

    Raises:
        ValueError: wrong shapes, data outside the support of the likelihood, an unknown statistic, or no draws.

    References:
        Czado, Gneiting & Held 2009, Predictive model assessment for count data, Biometrics 65, sec. 2 (the PIT).
        doi:10.1111/j.1541-0420.2009.01191.x
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    if prior_predictive is not None and prior_predictive < 0:
        raise ValueError(f"prior_predictive is a number of data sets, 0 for none, got {prior_predictive}")
    data = bind(pair, x, seed=seed, mask=mask, y=y)
    reducer = TreeReducer(
        data, num_draws, seed=seed, predictive=predictive, statistics=statistics, prior_predictive=prior_predictive
    )
    for block in data.walk(num_draws, seed=seed):
        reducer.add(block)
    return reducer.result()


class TreeReducer:
    """Collects what `to_datatree` keeps from the blocks of a walk; the arguments are those of `to_datatree`."""

    def __init__(
        self,
        data: PairData,
        num_draws: int,
        *,
        seed: int,
        predictive: bool | None = None,
        statistics: Sequence[str] | None = None,
        prior_predictive: int | None = None,
    ) -> None:
        self._data, self._num_draws, self._seed = data, num_draws, seed
        self._reason = data.programs.why_no_draws()
        if self._reason and (predictive or prior_predictive):
            raise ValueError(f"no predictive draws: {self._reason}")
        self._replicate = predictive is not False and self._reason is None
        self._observed = data.observed()
        self._columns = columns_of(data.pair.columns, self._observed)
        if statistics is None:
            statistics = () if self._columns else default_statistics(data.split.x_shape)
        self._statistics = tuple(STATISTICS.resolve(name) for name in statistics)
        if prior_predictive is None:
            affordable = max(_PRIOR_ELEMENTS // self._observed.size, _LEAST_PRIOR)
            prior_predictive = min(num_draws, affordable) if self._replicate else 0
        self._num_prior = prior_predictive
        self._fit = None if predictive else max(_PREDICTIVE_BYTES // max(self._observed.nbytes, 1), 1)
        kept = _thinned(num_draws, self._fit)
        self._posterior = PosteriorDraws(
            data, num_draws, kept=kept, statistics=self._statistics, replicate=self._replicate, seed=seed
        )

    def add(self, block: Block) -> None:
        """Add the data of a block."""
        self._posterior.add(block)

    def result(self) -> xr.DataTree:
        """The tree, once every block was added."""
        data, split, observed, posterior = self._data, self._data.split, self._observed, self._posterior.draws
        kept = _thinned(self._num_prior, self._fit)
        prior = prior_draws(data, self._num_prior, kept=kept, statistics=self._statistics, seed=self._seed)
        coords: dict[str, Any] = {"chain": [0], "draw": np.arange(self._num_draws), "datum": split.ids.cpu().numpy()}
        if split.labels is not None:
            coords["label"] = ("datum", split.labels.cpu().numpy())
        if self._columns:
            coords[COLUMNS] = self._columns
        event = tuple(f"x_dim_{i}" for i in range(len(split.x_shape)))
        nodes = {name: _dataset(variables, coords) for name, variables in _log_density_groups(posterior).items()}
        nodes["observed_data"] = _dataset({"x": (("datum", *event), observed)}, coords)
        if posterior.elements:
            summary = _summary(posterior, observed, np.random.default_rng(derive_seed(self._seed, _PIT_STREAM)))
            nodes["posterior_predictive_summary"] = _dataset(
                {name: (("datum", *event), value) for name, value in summary.items()}, coords
            )
        measured = measure(observed, self._statistics, event_dim=len(split.x_shape))
        for group, draws in (("posterior_predictive", posterior), ("prior_predictive", prior)):
            if "replications" in draws.groups:
                variables = {"x": _per_draw(draws.groups["replications"]["x"], event)}
                nodes[group] = _dataset(variables, {**coords, "draw": draws.kept})
            if draws.groups.get("statistics"):
                variables = {name: _per_draw(value) for name, value in draws.groups["statistics"].items()}
                everything = {**coords, "draw": np.arange(draws.num_draws)}
                nodes[f"predictive_statistics/{group}"] = _dataset(variables, everything)
                of_data = {name: ("datum", value.astype(observed.dtype)) for name, value in measured.items()}
                nodes["predictive_statistics/observed_data"] = _dataset(of_data, coords)
        tree = xr.DataTree.from_dict(nodes)
        tree.attrs |= {"space": str(split.space), "seed": self._seed, "num_draws": self._num_draws, "units": "nats"}
        names = data.programs.observed_names
        observed_sites = None if names == ("x",) else ", ".join(names)
        for name, value in (
            ("measure", data.pair.measure),
            ("of", data.pair.target(split)),
            ("observed_sites", observed_sites),
            (NO_DRAWS, self._reason),
        ):
            if value is not None:
                tree.attrs[name] = str(value)
        return tree


def _thinned(num_draws: int, fit: int | None) -> Array:
    """Numbers of the draws that are kept whole, at even distances."""
    keep = num_draws if fit is None else min(num_draws, fit)
    return np.linspace(0, num_draws - 1, keep).round().astype(np.int64) if keep else np.arange(0)


def _log_density_groups(draws: Draws) -> dict[str, dict[str, Any]]:
    groups = draws.groups
    latents = groups.get("latents", {})
    log_guide = groups["log_guide"]["log_guide"]
    log_weight = groups["log_likelihood"]["x"] + sum(groups["log_prior"].values()) - log_guide
    return {
        "posterior": {
            name: _per_draw(value, _latent_dims(name, value, name == "z" or len(latents) == 1))
            for name, value in latents.items()
        },
        "log_likelihood": {"x": _per_draw(groups["log_likelihood"]["x"])},
        "log_prior": {name: _per_draw(value) for name, value in groups["log_prior"].items()},
        "sample_stats": {"log_guide": _per_draw(log_guide), "log_weight": _per_draw(log_weight)},
    }


def _latent_dims(name: str, value: Array, named: bool) -> tuple[str, ...]:
    return ("latent",) if named and value.ndim == 3 else tuple(f"{name}_dim_{i}" for i in range(value.ndim - 2))


def _per_draw(value: Array, event: tuple[str, ...] = ()) -> tuple[tuple[str, ...], Array]:
    return ("chain", "draw", "datum", *event), value[None]


def _summary(draws: Draws, observed: Array, noise: np.random.Generator) -> dict[str, Array]:
    elements, dtype = draws.elements, observed.dtype
    variance = elements["squares"] / max(draws.num_draws - 1, 1)
    # Uniform where the observed value is exchangeable with its draws, whether there are ties or not.
    spread = noise.random(observed.shape) * (elements["equal"] + 1)
    pit = np.where(np.isnan(observed), np.nan, (elements["below"] + spread) / (draws.num_draws + 1))
    return {
        name: value.astype(dtype) for name, value in (("mean", elements["mean"]), ("sd", variance**0.5), ("pit", pit))
    }


def _dataset(variables: dict[str, Any], coords: dict[str, Any]) -> xr.Dataset:
    used = {dim for dims, _ in variables.values() for dim in ((dims,) if isinstance(dims, str) else dims)}
    kept = {name: value for name, value in coords.items() if name in used or (name == "label" and "datum" in used)}
    return xr.Dataset(variables, coords=kept)
