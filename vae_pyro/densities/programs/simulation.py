"""Draws of a model: data with their latents, replications given latents, and the distribution of what is observed.

A model that takes no ``size`` draws data by leaving those of a batch unobserved.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from vae_pyro.densities.programs.programs import Programs, repeated
from vae_pyro.densities.programs.running import run
from vae_pyro.densities.programs.summing import choices, draw_summed


class Simulation(NamedTuple):
    """Data of the model with the latents that made them.

    Attributes:
        x: ``(datum, *x_shape)``.
        latents: of each latent site that the guide draws, in the order of the model, ``(datum, *event)``.
        priors: p of each of them, batch shape ``(datum,)``.
    """

    x: Tensor
    latents: dict[str, Tensor]
    priors: dict[str, TorchDistribution]


def prior_latents(
    programs: Programs, x: Tensor, num_particles: int, *, mask: Tensor | None = None, y: Tensor | None = None
) -> dict[str, Tensor]:
    """Latents of the prior, ``(particle, datum, *event)``, in the order of the model, with torch's generator."""
    with torch.no_grad(), programs.state.evaluating():
        sites = programs.run_model(x, (num_particles, len(x)), {}, mask, y)
    return {name: site.value for name, site in sites.items() if not site.observed and name not in programs.summed}


def simulate(programs: Programs, size: int, *, like: Tensor | None = None, y: Tensor | None = None) -> Simulation:
    """Data from the prior predictive with their latents, with torch's generator as it stands.

    Args:
        size: number of data.
        like: some data, which a model without ``size`` is called with; the template's where they are not given.
        y: classes, ``(size,)``.

    Raises:
        ValueError: the model cannot draw data, see `replicate`.
    """
    programs.require("draws")
    unobserved = _Unobserved(() if programs.of_model.size else programs.data_sites)
    with torch.no_grad(), programs.state.evaluating(), unobserved:
        trace = poutine.trace(programs.drawing(_rows(programs, size, like), y)).get_trace()
    sites = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    }
    _require_sites(programs, sites)
    drawn = {name: site for name, site in sites.items() if not site["is_observed"] and name not in programs.data_sites}
    for name, site in drawn.items():
        if site["value"].shape[:1] != (size,):
            raise ValueError(
                f"latent site {name!r} has shape {tuple(site['value'].shape)} for {size} data; latents are local, "
                f"inside pyro.plate({programs.plate or 'data'!r}, n)"
            )
    x = _assembled(programs, {name: sites[name]["value"] for name in programs.data_sites}, (size,))
    if programs.data_dtype is not None:
        x = x.to(programs.data_dtype)
    kept = {name: site for name, site in drawn.items() if name not in programs.summed}
    return Simulation(
        x, {name: site["value"] for name, site in kept.items()}, {name: site["fn"] for name, site in kept.items()}
    )


def replicate(
    programs: Programs, x: Tensor, latents: dict[str, Tensor], num_particles: int, *, y: Tensor | None = None
) -> Tensor:
    """Data drawn anew given latents, or from the prior where there are none, ``(particle, datum, *x_shape)``.

    Args:
        x: data, of which only the shape is used.
        latents: draws of every latent site, ``(particle, datum, *event)``; empty for the prior's.
        num_particles: replications of each datum.
        y: classes, ``(datum,)``.

    Raises:
        ValueError: x is no site of its own, or its distribution depends on x itprograms.
    """
    shape = (num_particles, len(x))
    programs.require("draws")
    with torch.no_grad(), programs.state.evaluating():
        at = {**latents, **(_summed(programs, x, latents, y) if latents and programs.summed else {})}
        with _Unobserved(programs.data_sites, quickly=True):

            def call(copies: int) -> Any:
                return programs.drawing(repeated(x, copies), None if y is None else repeated(y, copies))()

            sites = run(programs.model_way, call, at, shape, programs.plate)
    _require_sites(programs, sites)
    return _assembled(programs, {name: sites[name].value for name in programs.data_sites}, shape)


def elements(
    programs: Programs, x: Tensor, latents: dict[str, Tensor], *, mask: Tensor | None = None, y: Tensor | None = None
) -> TorchDistribution:
    """p(x | z) of the only site of x, batch shape that begins with ``(particle, datum)``.

    Raises:
        ValueError: x is observed in another form, or its distribution depends on x itprograms.
    """
    if len(programs.data_sites) != 1:
        raise ValueError(
            f"x is observed at {', '.join(programs.data_sites) or 'no site of its own shape'}; imputation reads "
            "p(x | z) of all its elements at one site"
        )
    (name,) = programs.data_sites
    if programs.of_model.size:
        with torch.no_grad(), programs.state.evaluating():
            particles = len(next(iter(latents.values()))) if latents else 1

            def call(copies: int) -> Any:
                return programs.drawing(repeated(x, copies), None if y is None else repeated(y, copies))()

            sites = run(programs.model_way, call, latents, (particles, len(x)), programs.plate)
        if name not in sites:
            raise ValueError(f"the model has no site {name!r}; imputation reads p(x | z) there")
        return sites[name].distribution
    programs.require("draws")
    with torch.no_grad():
        return programs.score(x, latents, mask=mask, y=y).outputs[name]


def _summed(programs: Programs, x: Tensor, latents: dict[str, Tensor], y: Tensor | None) -> dict[str, Tensor]:
    shape = (len(next(iter(latents.values()))), len(x))
    every = choices(programs.summed, shape)
    return draw_summed([(at, programs.run_model(x, shape, {**latents, **at}, None, y)) for at in every])


def _rows(programs: Programs, size: int, like: Tensor | None) -> Tensor:
    source = like if like is not None else programs.template[0] if programs.template is not None else torch.empty(size)
    return source[torch.arange(size, device=source.device) % len(source)]


def _assembled(programs: Programs, values: dict[str, Tensor], batch: tuple[int, ...]) -> Tensor:
    """Sites of x side by side, as x."""
    first = next(iter(values.values()))
    if programs.template is None:
        return first
    x_shape = programs.template[0].shape[1:]
    if len(values) == 1:
        fits = first.numel() == prod(batch) * prod(x_shape)
        return first.reshape(*batch, *x_shape) if fits else first
    parts = [value.reshape(*batch, -1) for value in values.values()]
    joined = torch.cat([part.to(programs.template[0].dtype) for part in parts], -1)
    if joined.shape[-1] != prod(x_shape):
        raise ValueError(
            f"the model draws x of shape {tuple(joined.shape)}, the data have {(*batch, *x_shape)}; its sites are "
            f"{', '.join(values)}"
        )
    return joined.reshape(*batch, *x_shape)


def _require_sites(programs: Programs, sites: Mapping[str, Any]) -> None:
    unknown = [name for name in programs.data_sites if name not in sites]
    if unknown:
        raise ValueError(f"model(size=n) does not draw the site {unknown[0]!r}; it draws {sorted(sites) or 'nothing'}")


class _Unobserved(Messenger):
    """Has some sites drawn that the program observes.

    It stands outside the plates, which expand the distribution first.

    Args:
        names: of the sites.
        quickly: draw them by `draw`, other random numbers than the distribution's own.
    """

    def __init__(self, names: tuple[str, ...], *, quickly: bool = False) -> None:
        super().__init__()
        self.names, self.quickly = names, quickly

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["is_observed"] = False
            msg["value"] = draw(msg["fn"]) if self.quickly else None
            msg["done"] = self.quickly


def draw(distribution: Any) -> Tensor:
    """A draw of every element of a distribution."""
    base = distribution
    while hasattr(base, "base_dist"):
        base = base.base_dist
    if isinstance(base, torch.distributions.Bernoulli) and base.batch_shape == distribution.shape():
        # Comparing uniform numbers takes a quarter of torch.bernoulli's time.
        return (torch.rand_like(base.probs) < base.probs).to(base.probs.dtype)
    drawn: Tensor = distribution.sample()
    return drawn
