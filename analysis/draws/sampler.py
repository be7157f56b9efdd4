"""Draws of a pair at its data, block by block: latents, densities, and replicated data, measured as they are drawn.

Replications of all data do not fit in memory where data are many or large. All of them are measured, and some are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from analysis.stats.test_statistics import measure
from vae_pyro.core.registry import Choice
from vae_pyro.data.split import Given, Split, visible
from vae_pyro.densities.log_densities import Program, draw_latents, merge_moments, score_latents
from vae_pyro.evaluation.evaluation import ELEMENTS_AT_ONCE, Scorer, blocks, numbers_held, place_of
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]


@dataclass
class Draws:
    """What is kept of all draws, in arrays that blocks are written into, so that each is held once.

    Attributes:
        num_draws: draws for each datum.
        num_data: number of data.
        kept: numbers of the draws whose replications are kept whole, rising.
        groups: ``latents``, ``log_prior``, ``log_likelihood``, ``log_guide`` (nats, float64) and ``statistics``, arrays
            ``(draw, datum, *event)`` by name; ``replications``, ``(kept, datum, *event)``.
        elements: ``mean`` and ``squares`` (sum of squared deviations) of replications, and how many were ``below`` the
            data and ``equal`` to them, each ``(datum, *event)``; empty where replications are not of the data.
    """

    num_draws: int
    num_data: int
    kept: Array
    groups: dict[str, dict[str, Array]] = field(default_factory=dict)
    elements: dict[str, Array] = field(default_factory=dict)

    def put(self, group: str, values: dict[str, Any], particles: slice, rows: slice) -> None:
        """Write blocks ``(particle, datum, *event)`` to their places."""
        arrays = self.groups.setdefault(group, {})
        for name, value in values.items():
            block = as_array(value)
            if name not in arrays:
                arrays[name] = np.empty((self.num_draws, self.num_data, *block.shape[2:]), block.dtype)
            arrays[name][particles, rows] = block

    def keep(self, replications: Array, particles: slice, rows: slice) -> None:
        """Keep what the thinning keeps of a block."""
        arrays = self.groups.setdefault("replications", {})
        if "x" not in arrays:
            arrays["x"] = np.empty((len(self.kept), self.num_data, *replications.shape[2:]), replications.dtype)
        here = np.flatnonzero((self.kept >= particles.start) & (self.kept < particles.stop))
        arrays["x"][here, rows] = replications[self.kept[here] - particles.start]

    def compare(self, replications: Tensor, x: Tensor, particles: slice, rows: slice) -> None:
        """Add a block to `elements`."""
        if not self.elements:
            shape = (self.num_data, *x.shape[1:])
            self.elements = {name: np.zeros(shape) for name in ("mean", "squares")}
            self.elements |= {name: np.zeros(shape, np.int32) for name in ("below", "equal")}
        mean, squares = (torch.from_numpy(self.elements[name][rows]).to(x.device) for name in ("mean", "squares"))
        mean, squares = merge_moments((mean, squares), particles.start, replications)
        # Sums of floats are fast where sums of booleans are not, and exact up to 2^24 draws.
        below, equal = (side.to(x.dtype).sum(0) for side in (replications < x, replications == x))
        self.elements["mean"][rows], self.elements["squares"][rows] = as_array(mean), as_array(squares)
        self.elements["below"][rows] += as_array(below).astype(np.int32)
        self.elements["equal"][rows] += as_array(equal).astype(np.int32)


@dataclass(frozen=True)
class Sampler:
    """Draws from a pair, for some data. Wrap its calls in `vae_pyro.core.isolation.isolated` to seed them.

    Attributes:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        split: data with fixed observations.
        statistics: what replications are measured by.
    """

    pair: VAE | tuple[Program, Program]
    split: Split
    statistics: tuple[Choice, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the pair."""
        return place_of(self.pair, self.split.head)[1]

    def observed(self) -> Array:
        """The data, ``(datum, *event)``, NaN where an element is not observed."""
        return as_array(visible(*self.split.batch(slice(None), self.dtype)))

    def posterior(self, num_draws: int, *, kept: Array, replicate: bool = True) -> Draws:
        """Latents from the guide, their ledger, and data replicated given each; the guide runs once for a datum.

        Args:
            num_draws: draws for each datum.
            kept: numbers of the draws whose replications are kept whole, rising.
            replicate: draw replications at all.
        """
        model, guide = (self.pair.model, self.pair.guide) if isinstance(self.pair, VAE) else self.pair
        held = numbers_held(self.pair, self.split)
        scorer = Scorer(model, len(self.split) * num_draws * held)
        draws = Draws(num_draws, len(self.split), kept)
        resident = self._resident()
        for rows in _pieces(len(self.split), blocks(len(self.split), num_draws, held)[0]):
            x, given = resident.batch(rows, self.dtype)
            latents, log_guide = draw_latents(guide, x, num_particles=num_draws, **given)
            draws.put("latents", latents, slice(None), rows)
            draws.put("log_guide", {"log_guide": log_guide.double()}, slice(None), rows)
            for particles, some in _cells(num_draws, len(x), held):
                at = {name: value[particles, some].contiguous() for name, value in latents.items()}
                beside = {name: value[some] for name, value in given.items()}
                element = None
                if replicate or len(at) > 1:
                    log_likelihood, log_prior, element = _score(model, x[some], at, beside)
                else:  # log p(z) is that of the one site, and nothing else is asked of the model
                    log_likelihood, whole = scorer(x[some], beside, at)
                    log_prior = {name: whole.double() for name in at}
                place = particles, slice(rows.start + some.start, rows.start + some.stop)
                draws.put("log_likelihood", {"x": log_likelihood.double()}, *place)
                draws.put("log_prior", log_prior, *place)
                if replicate:
                    # The decoder of a VAE does not look at x, so that one run of it both scores and draws.
                    known = isinstance(self.pair, VAE)
                    size = some.stop - some.start
                    drawn = _draw(element) if known else _replicate(model, at, particles, size, beside.get("y"))
                    self._record(draws, drawn, x[some], beside.get("mask"), *place)
        return draws

    def prior(self, num_draws: int, *, kept: Array) -> Draws:
        """Data sets of the same size from ``model(size=n)``, unobserved where the data are.

        Args:
            num_draws: number of data sets.
            kept: numbers of the data sets that are kept whole, rising.
        """
        model = self.pair.model if isinstance(self.pair, VAE) else self.pair[0]
        draws = Draws(num_draws, len(self.split), kept)
        resident = self._resident()
        for particles, rows in _cells(num_draws, len(self.split), numbers_held(self.pair, self.split)):
            mask = None if resident.mask is None else resident.mask[rows]
            y = None if resident.y is None else resident.y[rows]
            drawn = _replicate(model, {}, particles, rows.stop - rows.start, y)
            self._record(draws, drawn, None, mask, particles, rows)
        return draws

    def _resident(self) -> Split:
        return self.split.to(place_of(self.pair, self.split.head)[0])

    def _record(
        self, draws: Draws, drawn: Tensor, x: Tensor | None, mask: Tensor | None, particles: slice, rows: slice
    ) -> None:
        shape = (particles.stop - particles.start, rows.stop - rows.start, *self.split.x_shape)
        if drawn.numel() != prod(shape):
            raise ValueError(f"the model draws x of shape {tuple(drawn.shape)}, and the data want {shape}")
        drawn = drawn.reshape(shape)
        draws.keep(as_array(drawn), particles, rows)
        if x is not None:
            draws.compare(drawn, x, particles, rows)
        seen = as_array(drawn if mask is None else visible(drawn, {"mask": mask}))
        measured = measure(seen, self.statistics, event_dim=len(self.split.x_shape))
        draws.put("statistics", {name: value.astype(seen.dtype) for name, value in measured.items()}, particles, rows)


def as_array(tensor: Tensor | Array) -> Array:
    """A tensor's numbers on the processor."""
    return tensor.detach().cpu().numpy() if isinstance(tensor, Tensor) else tensor


def _pieces(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _cells(num_draws: int, num_data: int, held: int) -> Iterator[tuple[slice, slice]]:
    """Draws and data to take at once: all draws of few data, so that what is kept of a datum is written once."""
    if num_draws == 0:
        return
    data = min(num_data, max(ELEMENTS_AT_ONCE // (num_draws * held), 1))
    particles = min(num_draws, max(ELEMENTS_AT_ONCE // (data * held), 1))
    for rows in _pieces(num_data, ceil(num_data / ceil(num_data / data))):
        for some in _pieces(num_draws, ceil(num_draws / ceil(num_draws / particles))):
            yield some, rows


def _score(
    model: Program, x: Tensor, latents: dict[str, Tensor], given: Given
) -> tuple[Tensor, dict[str, Tensor], Any]:
    """log p(x | z), log p of each latent site in float64, each ``(particle, datum)``, and the distribution of x."""
    with poutine.trace() as tracer:
        log_likelihood, log_prior = score_latents(model, x, latents, **given)
    nodes = tracer.trace.nodes
    sites = {}
    for name in latents:
        site = nodes[name]
        log_p = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
        sites[name] = log_p.expand(log_prior.shape).double()
    return log_likelihood, sites, nodes["x"]["fn"]


def _replicate(
    model: Program, latents: dict[str, Tensor], particles: slice, size: int, y: Tensor | None = None
) -> Tensor:
    given = {} if y is None else {"y": y}
    with _Draw(), pyro.plate("particles", particles.stop - particles.start, dim=-2):
        trace = poutine.trace(poutine.condition(model, data=latents)).get_trace(size=size, **given)
    drawn: Tensor = trace.nodes["x"]["value"]
    return drawn


class _Draw(Messenger):
    """Draws ``x`` by `_draw`. It stands outside the plates, which expand the distribution first."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x" and not msg["done"] and not msg["is_observed"]:
            msg["value"], msg["done"] = _draw(msg["fn"]), True


def _draw(distribution: Any) -> Tensor:
    base = distribution
    while hasattr(base, "base_dist"):
        base = base.base_dist
    if isinstance(base, torch.distributions.Bernoulli) and base.batch_shape == distribution.shape():
        # Comparing uniform numbers takes a quarter of torch.bernoulli's time.
        return (torch.rand_like(base.probs) < base.probs).to(base.probs.dtype)
    drawn: Tensor = distribution.sample()
    return drawn
