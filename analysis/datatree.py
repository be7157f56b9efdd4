"""From torch to xarray: draws, ledger and data of a fitted pair as an ArviZ `DataTree`. No other file crosses."""

from math import prod
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from pyro import poutine
from torch import Tensor

from vae_pyro.data import Split, as_split
from vae_pyro.densities import Ledger, Program, log_densities
from vae_pyro.evaluation import ELEMENTS_AT_ONCE, numbers_held, place_of
from vae_pyro.isolation import derive_seed, isolated
from vae_pyro.vae import VAE

_PREDICTIVE_BYTES = 512 * 1024**2


@torch.no_grad()
def to_datatree(
    pair: VAE | tuple[Program, Program],
    x: Split | Tensor | np.ndarray[Any, Any],
    *,
    num_draws: int = 500,
    seed: int = 0,
    predictive: bool | None = None,
) -> xr.DataTree:
    """Draw from the guide at each datum and keep draws, log densities, predictive draws and data, with labels.

    Draws are independent; they stand in one chain, since ArviZ's functions want a chain. Groups are ``posterior`` (each
    latent site), ``log_likelihood`` (``x``), ``log_prior``, ``sample_stats`` (``log_guide``, ``log_weight``),
    ``posterior_predictive`` (``x`` drawn anew given each latent) and ``observed_data`` (``x``). Dimensions are
    ``chain``, ``draw``, ``datum`` and those of the event; ``datum`` carries the ids, and ``label`` where there are
    labels. All log densities are in nats. Elements that were not observed are NaN in ``observed_data``.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum.
        seed: of the draws.
        predictive: keep predictive draws; ``None`` keeps them where they take at most 512 MiB.

    Returns:
        The tree; ``to_netcdf`` saves it.

    Raises:
        ValueError: wrong shapes, or data outside the support of the likelihood.
    """
    split = as_split(x).fixed(derive_seed(seed, 0))
    if isinstance(pair, VAE):
        pair.check(split.values, split.summary())
    model, guide = (pair.model, pair.guide) if isinstance(pair, VAE) else pair
    device, dtype = place_of(pair, split.values)
    elements = prod(split.x_shape)
    if predictive is None:
        predictive = num_draws * len(split) * elements * dtype.itemsize <= _PREDICTIVE_BYTES
    num_data = max(ELEMENTS_AT_ONCE // (num_draws * numbers_held(pair, split)), 1)

    ledgers: list[Ledger] = []
    replicated: list[np.ndarray[Any, Any]] = []
    observed: list[np.ndarray[Any, Any]] = []
    resident = split.to(device)
    with isolated(derive_seed(seed, 1)):
        for start in range(0, len(split), num_data):
            batch, mask = resident.batch(slice(start, start + num_data), dtype)
            ledger = log_densities(model, guide, batch, num_particles=num_draws, mask=mask)
            ledgers.append(ledger)
            observed.append(_array(batch if mask is None else torch.where(mask, batch, torch.nan)))
            if predictive:
                replicated.append(_array(_replicate(model, ledger, len(batch))))

    coords: dict[str, Any] = {"chain": [0], "draw": np.arange(num_draws), "datum": split.ids.numpy()}
    if split.labels is not None:
        coords["label"] = ("datum", split.labels.cpu().numpy())
    ledger_dims = ("chain", "draw", "datum")
    event_dims = tuple(f"x_dim_{i}" for i in range(len(split.x_shape)))

    def per_draw(parts: list[Tensor], name: str = "") -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
        values = np.concatenate([_array(part) for part in parts], axis=1)[None]
        event = tuple(f"{name}_dim_{i}" for i in range(values.ndim - 3))
        return ledger_dims + (("latent",) if name == "z" and len(event) == 1 else event), values

    groups: dict[str, dict[str, Any]] = {
        "posterior": {
            name: per_draw([ledger.latents[name] for ledger in ledgers], name) for name in ledgers[0].latents
        },
        "log_likelihood": {"x": per_draw([ledger.log_likelihood for ledger in ledgers])},
        "log_prior": {name: per_draw([ledger.sites[name][0] for ledger in ledgers]) for name in ledgers[0].sites},
        "sample_stats": {
            "log_guide": per_draw([ledger.log_guide for ledger in ledgers]),
            "log_weight": per_draw([ledger.log_weight for ledger in ledgers]),
        },
        "observed_data": {"x": (("datum", *event_dims), np.concatenate(observed))},
    }
    if predictive:
        values = np.concatenate(replicated, axis=1)[None]
        groups["posterior_predictive"] = {"x": ((*ledger_dims, *event_dims), values)}
    tree = xr.DataTree.from_dict({name: _dataset(variables, coords) for name, variables in groups.items()})
    tree.attrs |= {"space": split.space, "seed": seed, "num_draws": num_draws, "units": "nats"}
    return tree


def _dataset(variables: dict[str, Any], coords: dict[str, Any]) -> xr.Dataset:
    used = {dim for dims, _ in variables.values() for dim in dims}
    kept = {name: value for name, value in coords.items() if name in used or (name == "label" and "datum" in used)}
    return xr.Dataset(variables, coords=kept)


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return array


def _replicate(model: Program, ledger: Ledger, size: int) -> Tensor:
    particles = len(ledger.log_likelihood)
    with pyro.plate("particles", particles, dim=-2):
        trace = poutine.trace(poutine.condition(model, data=ledger.latents)).get_trace(size=size)
    drawn: Tensor = trace.nodes["x"]["value"]
    return drawn
