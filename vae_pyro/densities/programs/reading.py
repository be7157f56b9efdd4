"""What a trace of a model says: the plate over data, the sites that are x, and those that can be summed out."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from vae_pyro.densities.programs.running import sample_sites
from vae_pyro.densities.sites import is_discrete

type Trace = Any

# Rows of a second trace, where a plate of the first might be that of the data by chance.
_OTHER_ROWS = 7


def plate_over_data(model: Trace, count: int, retrace: Callable[[int], Trace] | None) -> str:
    """The plate whose size is the number of rows, whatever that is.

    Args:
        model: a trace on ``count`` rows.
        count: of rows.
        retrace: gives a trace on another number of rows; ``None`` where there is no other.

    Raises:
        ValueError: no such plate, or several.
    """
    candidates = _plates(model, count)
    if len(candidates) > 1 and retrace is not None:
        candidates = [name for name in candidates if name in _plates(retrace(_OTHER_ROWS), _OTHER_ROWS)]
    if len(candidates) > 1:
        named = ", ".join(map(repr, candidates))
        raise ValueError(f"the plate over data may be {named}; choose with Pair(model, guide, plate={candidates[0]!r})")
    if candidates:
        return candidates[0]
    frames = {frame.name: frame for _, site in sample_sites(model) for frame in site["cond_indep_stack"]}
    if not any(True for _ in sample_sites(model)):
        raise ValueError("the model has no sample site; write pyro.sample(..., obs=x) in pyro.plate('data', len(x))")
    for frame in frames.values():
        if frame.vectorized and frame.full_size is not None and frame.full_size != frame.size:
            raise ValueError(
                f"plate {frame.name!r} takes a subsample of {frame.size} of {frame.full_size} rows by itself, so that "
                f"these data have no density each; write pyro.plate({frame.name!r}, N, subsample=x) or "
                f"pyro.plate({frame.name!r}, len(x))"
            )
    sequential = [name for name, frame in frames.items() if not frame.vectorized]
    others = ", ".join(name for name in frames if name not in sequential) or "none"
    beside = f", and loops over {', '.join(sequential)}" if sequential else ""
    raise ValueError(
        f"the model has no vectorised plate over the {count} rows that it was given (its plates: "
        f"{others}{beside}); put latents and data inside of pyro.plate('data', len(x))"
    )


def refuse_outside(role: str, name: str, site: Any, plate: str) -> None:
    """Say that a site is in no plate over data.

    Raises:
        ValueError: always.
    """
    frames = [frame.name for frame in site["cond_indep_stack"] if frame.vectorized]
    raise ValueError(
        f"site {name!r} of the {role} is under the plates {', '.join(map(repr, frames)) or 'none'} and not in "
        f"{plate!r}, the plate over data: log densities are of single data, and have no part of what all data "
        "share; make it a parameter, fix it with poutine.condition, or put it in the plate"
    )


def values_of(name: str, site: Any) -> Tensor:
    """What a site of the model alone can be, ``(value, *event)``.

    Raises:
        ValueError: its values cannot be listed.
    """
    fn = site["fn"]
    try:
        values: Tensor = fn.enumerate_support(expand=False) if is_discrete(fn) else torch.empty(0)
    except NotImplementedError:
        values = torch.empty(0)
    event = fn.event_shape
    if values.numel() == 0 or values.numel() != len(values) * event.numel() or len(fn.batch_shape) != 1:
        raise ValueError(
            f"latent site {name!r} of the model is not in the guide; draw it in the guide as well, since its values "
            "cannot be listed and summed out"
        )
    return values.reshape(len(values), *event)


def observed_sites(
    sites: dict[str, Any], x: Tensor, chosen: tuple[str, ...] | None, names: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which observed sites count in log p(x | z), and which of them are x, side by side.

    Args:
        sites: observed sites of the model.
        x: what it was called with, ``(datum, *x_shape)``.
        chosen: those that count; ``None`` for all.
        names: all sites of the model.

    Raises:
        ValueError: none is observed, one that is chosen is not, or x is observed at several.
    """
    if not sites:
        raise ValueError(
            f"the model observes nothing: its sites are {', '.join(names)}, none of them with obs=; write "
            "pyro.sample(..., obs=x)"
        )
    unknown = [name for name in chosen or () if name not in sites]
    if unknown:
        raise ValueError(f"observed={unknown[0]!r} is no observed site; the model observes {', '.join(sites)}")
    counted = {name: sites[name] for name in chosen} if chosen else sites
    own = {
        name: site["value"]
        for name, site in counted.items()
        if isinstance(site["value"], Tensor) and not poutine.util.site_is_factor(site)
    }
    flat = x.reshape(len(x), -1)
    whole = [name for name, value in own.items() if _same(value, flat)]
    if len(whole) > 1:  # a mask or a label that is equal to x on a few rows is no part of it
        whole = [name for name in whole if own[name].data_ptr() == x.data_ptr()] or whole
    if len(whole) > 1 and chosen is None:
        raise ValueError(
            f"x is observed at the sites {', '.join(whole)}, and which is its likelihood is not known; choose with "
            f"Pair(model, guide, observed={whole[0]!r}), or count all with observed={tuple(whole)!r}"
        )
    if whole:
        return tuple(counted), (whole[0],)
    parts = [value.reshape(len(x), -1).to(flat.dtype) for value in own.values() if len(value) == len(x)]
    return tuple(counted), tuple(own) if parts and _same(torch.cat(parts, -1), flat) else ()


def _plates(trace: Trace, count: int) -> list[str]:
    """Outermost plates of so many rows that some site is in."""
    found: dict[str, int] = {}
    for _, site in sample_sites(trace):
        for frame in site["cond_indep_stack"]:
            if frame.vectorized and frame.size == count:
                found[frame.name] = frame.dim
    return list(found)


def _same(value: Tensor, flat: Tensor) -> bool:
    if len(value) != len(flat) or value[0].numel() != flat[0].numel():
        return False
    return torch.equal(value.reshape(len(flat), -1).to(flat.dtype), flat)
