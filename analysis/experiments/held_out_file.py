"""The netCDF file of the held-out results of a run: written whole or not at all, verified by a checksum when read."""

import hashlib
import json
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analysis.draws.datatree import write_netcdf
from vae_pyro.core.files import RunError

if TYPE_CHECKING:
    from analysis.experiments.held_out import HeldOut

_FORMAT = "vae_pyro held out 1"
_PER_LATENT = ("activity", "activity_se", "code_kl")
_SCALARS = ("num_draws", "space", "measure", "fingerprint", "epochs", "seconds", "of")


def to_dataset(held_out: "HeldOut") -> xr.Dataset:
    """All results by ``datum`` and ``latent``; scalars as attributes.

    ``measure`` and ``of`` are left out where they are unknown.
    """
    scalars = {name: value for name in _SCALARS if (value := getattr(held_out, name)) is not None}
    return _arrays(held_out).assign_attrs(units="nats per datum", **scalars)


def write(held_out: "HeldOut", inputs: dict[str, Any], path: Path) -> None:
    """Write the results, and what they were computed from (``inputs``, JSON-able)."""
    dataset = _arrays(held_out)
    about = {name: getattr(held_out, name) for name in _SCALARS}
    dataset.attrs = {
        "format": _FORMAT,
        "units": "nats per datum",
        "about": json.dumps(about | {"seconds": repr(held_out.seconds)}, sort_keys=True),
        "made_of": json.dumps(inputs, sort_keys=True),
    }
    dataset.attrs["sha256"] = _digest(dataset)
    write_netcdf(dataset, path)


def read(path: Path) -> "tuple[HeldOut, dict[str, Any]]":
    """The results and their ``inputs``, as `write` was given them.

    Raises:
        RunError: the file is absent, truncated, foreign, or was changed after it was written.
    """
    from analysis.experiments.held_out import HeldOut

    if not path.is_file():
        raise RunError(
            f"no {path.name} in {str(path.parent)!r}; measure the run with analysis.experiments.measurement.measure_run"
        )
    try:
        with warnings.catch_warnings(), xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:  # the exception of a damaged HDF5 file depends on the damaged part
        raise RunError(f"{str(path)!r} is truncated or not a netCDF file: {error}") from None
    if dataset.attrs.get("format") != _FORMAT:
        raise RunError(f"{str(path)!r} is foreign: format {dataset.attrs.get('format')!r}, expected {_FORMAT!r}")
    if dataset.attrs.get("sha256") != _digest(dataset):
        raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    about = json.loads(dataset.attrs["about"])
    about["seconds"] = float(about["seconds"])
    arrays = {name: dataset[name].values for name in (*_per_datum(HeldOut), *_PER_LATENT, "codes")}
    inputs: dict[str, Any] = json.loads(dataset.attrs["made_of"])
    return HeldOut(**arrays, ids=dataset["datum"].values, **about), inputs


def _arrays(held_out: "HeldOut") -> xr.Dataset:
    variables: dict[str, Any] = {name: ("datum", getattr(held_out, name)) for name in _per_datum(type(held_out))}
    variables |= {name: ("latent", getattr(held_out, name)) for name in _PER_LATENT}
    variables["codes"] = (("datum", "latent"), held_out.codes)
    return xr.Dataset(variables, coords={"datum": held_out.ids})


def _per_datum(results: "type[HeldOut]") -> list[str]:
    others = {*_PER_LATENT, *_SCALARS, "codes", "ids"}
    return [field.name for field in fields(results) if field.name not in others]


def _digest(dataset: xr.Dataset) -> str:
    digest = hashlib.sha256()
    for name in ("format", "units", "about", "made_of"):
        digest.update(str(dataset.attrs.get(name)).encode() + b"|")
    for name in sorted(str(name) for name in dataset.variables):
        values = np.ascontiguousarray(dataset[name].values)
        digest.update(f"{name}|{values.dtype.str}|{values.shape}|".encode() + values.tobytes())
    return digest.hexdigest()
