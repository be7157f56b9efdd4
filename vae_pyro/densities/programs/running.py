"""One run of a program at many draws: all particles at once, as further data, or one after the other.

Programs are asked for one log density for each particle and datum. Those whose tensors broadcast over a plate of
particles are run once. Where they do not (``view(-1, ...)``, recurrent networks, ``torch.cat`` of draws with data),
particles are folded into the data, or run one by one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from vae_pyro.densities.programs.regrouping import regroup

PARTICLE_DIM = -2
# What the plate over data is called where several would do.
_PLATE = "data"
_PARTICLES = "particles"


class Way(StrEnum):
    """How a program is run at many particles."""

    VECTORIZED = "all particles at once"
    FOLDED = "particles as further data"
    LOOPED = "one particle after the other"


@dataclass(frozen=True)
class Site:
    """A sample site of a run.

    Attributes:
        log_prob: nats, ``(particle, datum)``.
        value: ``(particle, datum, *event)``; dimensions of further plates count as those of the event.
        observed: the program gives the value.
        factor: it is a term without a value.
        auxiliary: a step towards another site, which the other program does not know.
        make: builds `distribution`.
    """

    log_prob: Tensor
    value: Tensor
    observed: bool
    factor: bool
    auxiliary: bool
    make: Callable[[], TorchDistribution]

    @property
    def distribution(self) -> TorchDistribution:
        """Its distribution, batch shape that broadcasts to ``(particle, datum)``."""
        return self.make()


type Sites = dict[str, Site]
# A call of a program with its data so many times over, without an answer.
type Call = Callable[[int], Any]


def run(way: Way, call: Call, values: dict[str, Tensor], shape: tuple[int, int], plate: str | None = None) -> Sites:
    """Run a program with the values of some sites fixed; the others are drawn.

    Args:
        way: how particles are run.
        call: the program with its data.
        values: ``(particle, datum, *event)`` of each site that is not drawn.
        shape: numbers of particles and data.
        plate: name of the plate over data; ``None`` finds it.

    Returns:
        The sites, in the order of the program.

    Raises:
        ValueError: a site without one log density for each particle and datum.
    """
    num_particles, _ = shape
    if way is Way.VECTORIZED:
        with pyro.plate(_PARTICLES, num_particles, dim=PARTICLE_DIM):
            trace = poutine.trace(poutine.replay(lambda: call(1), trace=fixed(values))).get_trace()
        return {name: _vectorized(name, site, shape, plate) for name, site in sample_sites(trace)}
    if way is Way.FOLDED:
        flat = {name: value.flatten(0, 1) for name, value in values.items()}
        traces = [poutine.trace(poutine.replay(lambda: call(num_particles), trace=fixed(flat))).get_trace()]
    else:
        each = [{name: value[number] for name, value in values.items()} for number in range(num_particles)]
        traces = [poutine.trace(poutine.replay(lambda: call(1), trace=fixed(at))).get_trace() for at in each]
    return _by_rows(traces, shape, plate)


def fixed(values: dict[str, Tensor]) -> poutine.Trace:
    """A trace to replay that has the values of some sites."""
    trace = poutine.Trace()
    for name, value in values.items():
        trace.add_node(name, type="sample", name=name, is_observed=False, value=value, infer={})
    return trace


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sites that have a density: no subsampling, and nothing that is deterministic."""
    for name, site in trace.nodes.items():
        scored = site["type"] == "sample" and not poutine.util.site_is_subsample(site)
        if scored and not site["infer"].get("_deterministic"):
            yield name, site


def log_prob_of(name: str, site: dict[str, Any], shape: tuple[int, int], plate: str | None = None) -> Tensor:
    """Log density of a site of a vectorised run, nats, ``(particle, datum)``.

    Raises:
        ValueError: it is not one number for each particle and datum.
    """
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    names = [frame.name for frame in frames]
    expected = plate or _PLATE
    if plate is None and _PLATE not in names:
        over_data = [frame.name for frame in frames if frame.dim == -1 and frame.size == shape[1]]
        expected = over_data[0] if over_data else _PLATE
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if expected not in names or log_prob.dim() > 2:
        raise ValueError(
            f"site {name!r} has log density of shape {tuple(log_prob.shape)} under the plates {names or 'none'}; it "
            f"must be one number for each particle and datum: put the site in pyro.plate({expected!r}, n), and declare "
            "its other dimensions with .to_event()"
        )
    # A subsampling plate's scale N / B is left out on purpose: these are densities of data, not terms of a loss.
    within: Tensor = scale_and_mask(log_prob, mask=site["mask"])
    return within.expand(shape)


def masked(site: dict[str, Any]) -> TorchDistribution:
    """The distribution of a site, with its mask."""
    return site["fn"] if site["mask"] is None else site["fn"].mask(site["mask"])


def _vectorized(name: str, site: dict[str, Any], shape: tuple[int, int], plate: str | None) -> Site:
    log_prob, value = log_prob_of(name, site, shape, plate), site["value"]
    if not site["is_observed"]:
        value = value.expand(*shape, *value.shape[value.dim() - site["fn"].event_dim :])
    return Site(log_prob, value, *_roles(site), lambda: masked(site))


def _by_rows(traces: list[poutine.Trace], shape: tuple[int, int], plate: str | None) -> Sites:
    """The sites of runs without a plate of particles: one with all rows, or one for each particle."""
    num_particles, num_data = shape
    count = num_particles * num_data // len(traces)
    found: Sites = {}
    for name, site in sample_sites(traces[0]):
        parts = [_rows(name, trace.nodes[name], count, plate) for trace in traces]
        log_prob, value = (torch.stack([part[number] for part in parts]) for number in (0, 1))
        log_prob = log_prob.reshape(shape)
        value = value.reshape(*shape, *value.shape[2:])
        distributions = [part[2] for part in parts]
        found[name] = Site(log_prob, value, *_roles(site), _later(distributions, num_particles, value, log_prob))
    return found


def _later(parts: list[Any], num_particles: int, value: Tensor, log_prob: Tensor) -> Callable[[], TorchDistribution]:
    return lambda: regroup(parts, num_particles, value, log_prob)


def _rows(name: str, site: dict[str, Any], count: int, plate: str | None) -> tuple[Tensor, Tensor, TorchDistribution]:
    """Log density ``(row,)``, value ``(row, *event)`` and distribution of a site, further plates within its event."""
    dim = over_rows(site, count, plate)
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    log_prob = scale_and_mask(log_prob, mask=site["mask"])
    if dim is None or log_prob.dim() > -dim:
        raise ValueError(
            f"site {name!r} has log density of shape {tuple(log_prob.shape)}, not one for each of {count} rows; put it "
            "in the plate over data, to the right of no other, and declare its other dimensions with .to_event()"
        )
    inner = -dim - 1
    batch = (count, *torch.broadcast_shapes(log_prob.shape, (1,) * -dim)[1:])
    value = site["value"]
    if not poutine.util.site_is_factor(site):
        value = value.expand(*batch, *value.shape[value.dim() - site["fn"].event_dim :])
    summed = log_prob.expand(batch).reshape(count, -1).sum(-1)
    return summed, value, masked(site).to_event(inner) if inner else masked(site)


def over_rows(site: dict[str, Any], count: int, plate: str | None) -> int | None:
    """Dimension of the plate over data that a site of a run without particles is in; ``None`` where it is in none."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.size == count]
    named = [frame for frame in frames if frame.name == (plate or _PLATE)]
    chosen = named or ([] if plate else frames)
    return min((frame.dim for frame in chosen), default=None)


def _roles(site: dict[str, Any]) -> tuple[bool, bool, bool]:
    return bool(site["is_observed"]), poutine.util.site_is_factor(site), bool(site["infer"].get("is_auxiliary"))
