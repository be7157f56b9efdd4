"""Draws of a pair at its data, block by block: latents, densities, and replicated data, measured as they are drawn.

Replications of all data do not fit in memory where data are many or large. All of them are measured, and some are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.stats.test_statistics import measure
from vae_pyro.core.isolation import RandomStream, derive_seed, isolated
from vae_pyro.core.registry import Choice
from vae_pyro.data.split import Given, visible
from vae_pyro.densities.moments import merge_moments
from vae_pyro.densities.programs.simulation import draw, replicate
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, Block, PairData, pieces, take

type Array = np.ndarray[Any, Any]

_PRIOR_STREAM, _REPLICATION_STREAM = 2, 4


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

    def put_scores(self, log_likelihood: Tensor, log_prior: dict[str, Tensor], particles: slice, rows: slice) -> None:
        """Write log p(x | z) and the log p of each latent site to their places, in float64."""
        self.put("log_likelihood", {"x": log_likelihood.double()}, particles, rows)
        self.put("log_prior", {name: value.double() for name, value in log_prior.items()}, particles, rows)

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


class PosteriorDraws:
    """Collects latents, log densities and data replicated given each latent from the blocks of a walk.

    Args:
        data: the pair and its data.
        num_draws: draws for each datum.
        kept: numbers of the draws whose replications are kept whole, rising.
        statistics: what replications are measured by.
        replicate: draw replications at all.
        seed: of the replications; the latents are those of the walk.
    """

    def __init__(
        self,
        data: PairData,
        num_draws: int,
        *,
        kept: Array,
        statistics: tuple[Choice, ...] = (),
        replicate: bool = True,
        seed: int = 0,
    ) -> None:
        self.draws = Draws(num_draws, len(data), kept)
        self._data, self._statistics, self._replicate = data, statistics, replicate
        self._stream = RandomStream(derive_seed(seed, _REPLICATION_STREAM))

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add the data of a block."""
        self.draws.put("latents", block.latents, slice(None), block.rows)
        self.draws.put("log_guide", {"log_guide": block.log_guide.double()}, slice(None), block.rows)
        if not self._replicate:
            for scores in block.scores():
                self.draws.put_scores(scores.log_likelihood, scores.log_prior, scores.particles, block.rows)
            return
        for particles, some in _cells(block.num_draws, len(block), self._data.width):
            rows = slice(block.rows.start + some.start, block.rows.start + some.stop)
            with self._stream.active():
                drawn = self._replicated(block, particles, some, rows)
            mask = _of(block.given, some).get("mask")
            _record(self.draws, self._data, self._statistics, drawn, block.x[some], mask, particles, rows)

    def _replicated(self, block: Block, particles: slice, some: slice, rows: slice) -> Tensor:
        """Score some draws and replicate the data given each of them; one run of the model where that is enough."""
        programs = self._data.programs
        at = {name: value.contiguous() for name, value in take(block.latents, particles, some).items()}
        beside = _of(block.given, some)
        count = particles.stop - particles.start
        scores = programs.score(block.x[some], at, num_particles=count, **beside)
        self.draws.put_scores(scores.log_likelihood, scores.log_prior, particles, rows)
        if programs.outputs_ignore_data:
            return draw(scores.outputs[programs.data_sites[0]])
        return replicate(programs, block.x[some], at, count, y=beside.get("y"))


@torch.no_grad()
def prior_draws(
    data: PairData, num_draws: int, *, kept: Array, statistics: tuple[Choice, ...] = (), seed: int = 0
) -> Draws:
    """Data sets of the same size from ``model(size=n)``, unobserved where the data are.

    Args:
        data: the pair and its data.
        num_draws: number of data sets.
        kept: numbers of the data sets that are kept whole, rising.
        statistics: what they are measured by.
        seed: of the draws.
    """
    draws = Draws(num_draws, len(data), kept)
    split = data.split
    with isolated(derive_seed(seed, _PRIOR_STREAM)):
        for particles, rows in _cells(num_draws, len(split), data.width):
            x, given = data.batch(rows)
            mask, y = given.get("mask"), given.get("y")
            drawn = replicate(data.programs, x, {}, particles.stop - particles.start, y=y)
            _record(draws, data, statistics, drawn, None, mask, particles, rows)
    return draws


def _record(
    draws: Draws,
    data: PairData,
    statistics: tuple[Choice, ...],
    drawn: Tensor,
    x: Tensor | None,
    mask: Tensor | None,
    particles: slice,
    rows: slice,
) -> None:
    x_shape = data.split.x_shape
    shape = (particles.stop - particles.start, rows.stop - rows.start, *x_shape)
    if drawn.numel() != prod(shape):
        raise ValueError(f"the model draws x of shape {tuple(drawn.shape)}, the data require {shape}")
    drawn = drawn.reshape(shape)
    draws.keep(as_array(drawn), particles, rows)
    if x is not None:
        draws.compare(drawn, x, particles, rows)
    seen = as_array(drawn if mask is None else visible(drawn, {"mask": mask}))
    measured = measure(seen, statistics, event_dim=len(x_shape))
    draws.put("statistics", {name: value.astype(seen.dtype) for name, value in measured.items()}, particles, rows)


def as_array(tensor: Tensor | Array) -> Array:
    """A tensor's numbers on the processor."""
    return tensor.detach().cpu().numpy() if isinstance(tensor, Tensor) else tensor


def _cells(num_draws: int, num_data: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Draws and data to take at once: all draws of few data, so that what is kept of a datum is written once."""
    if num_draws == 0:
        return
    data = min(num_data, max(ELEMENTS_AT_ONCE // (num_draws * width), 1))
    particles = min(num_draws, max(ELEMENTS_AT_ONCE // (data * width), 1))
    for rows in pieces(num_data, ceil(num_data / ceil(num_data / data))):
        for some in pieces(num_draws, ceil(num_draws / ceil(num_draws / particles))):
            yield some, rows


def _of(given: Given, rows: slice) -> Given:
    return {name: value[rows] for name, value in given.items()}
