"""Methods of a refit: what data the guide is trained on, and by which loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vae_pyro.core.registry import Choice
from vae_pyro.data.split import Given
from vae_pyro.densities.log_density import LogDensities, zero_with_gradient
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.programs.running import Way
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.objectives.base import MonteCarloObjective

type Method = str | Mapping[str, float]
type Latents = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Data of one loss.

    Attributes:
        x: ``(datum, *x_shape)``.
        given: ``mask`` and ``y`` that the programs are given.
        latents: that made the data, ``(datum, *event)``; empty where the data are no draws of the model.
    """

    x: Tensor
    given: Given
    latents: Latents

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Term:
    """One method.

    Attributes:
        simulated: whether it trains on draws of the model; on the training data otherwise.
        by_objective: whether its loss is an objective of draws of the guide.
        loss: nats, ``(datum,)``.
    """

    simulated: bool
    by_objective: bool
    loss: Callable[[Programs, MonteCarloObjective, Batch], Tensor]


def _objective_loss(programs: Programs, objective: MonteCarloObjective, batch: Batch) -> Tensor:
    densities = differentiable_densities(programs, objective, batch)
    bound, surrogate = objective.bound(densities), objective.surrogate(densities)
    if surrogate is None:
        return -bound
    return -(bound.detach() + surrogate - surrogate.detach())


def _sleep_loss(programs: Programs, objective: MonteCarloObjective, batch: Batch) -> Tensor:
    latents = {name: value[None] for name, value in batch.latents.items()}
    return -programs.score_guide(batch.x, latents, **batch.given)[0]


METHODS: dict[str, Term] = {
    "half_asleep": Term(True, True, _objective_loss),
    "sleep": Term(True, False, _sleep_loss),
    "wake": Term(False, True, _objective_loss),
}
"""``half_asleep`` minimises KL(q || p) on draws of the model, ``sleep`` KL(p || q) there, ``wake`` KL(q || p) on the
training data."""


def shares_of(method: Method) -> dict[str, float]:
    """The share of a batch that each method is given.

    >>> shares_of("half_asleep")
    {'half_asleep': 1.0}
    >>> shares_of("half_asleep=0.5,wake=0.5")
    {'half_asleep': 0.5, 'wake': 0.5}

    Args:
        method: a name, ``"name=share,name=share"``, or a mapping of names to shares.

    Raises:
        ValueError: an unknown method, a share that is not positive, or shares that do not add up to 1.
    """
    known = ", ".join(METHODS)
    if isinstance(method, str):
        parts = [part.partition("=") for part in method.split(",")]
        try:
            named = {name.strip(): float(share) if sign else 1.0 for name, sign, share in parts}
        except ValueError:
            raise ValueError(f"method={method!r}: a share is a number, as in 'half_asleep=0.5,wake=0.5'") from None
    else:
        named = {name: float(share) for name, share in method.items()}
    unknown = [name for name in named if name not in METHODS]
    if unknown or not named:
        raise ValueError(f"unknown method {unknown[0] if unknown else method!r}; choose from {known}")
    if not all(share > 0 for share in named.values()) or abs(sum(named.values()) - 1) > 1e-6:
        raise ValueError(
            f"method={method!r}: the shares are {list(named.values())}; give positive shares that add up to 1, as in "
            "'half_asleep=0.5,wake=0.5'"
        )
    return named


def objective_of(objective: str | Choice) -> MonteCarloObjective:
    """The objective of ``half_asleep`` and ``wake``.

    Raises:
        ValueError: unknown, or no reduction of log densities over particles.
    """
    built: Any = OBJECTIVES.build(OBJECTIVES.resolve(objective))
    if not isinstance(built, MonteCarloObjective):
        raise ValueError(
            f"objective={str(objective)!r} is no reduction of log densities over particles; choose 'stl' (the ELBO), "
            "'iwae' or 'dreg'"
        )
    return built


def differentiable_densities(programs: Programs, objective: MonteCarloObjective, batch: Batch) -> LogDensities:
    """Log densities of draws of the guide, as `vae_pyro.densities.log_density.log_densities`, of any programs.

    Args:
        programs: of the pair.
        objective: says how many draws, and which gradients.
        batch: the data.

    Raises:
        ValueError: the objective requires reparameterised draws, and a site has none.
    """
    x, mask, y = batch.x, batch.given.get("mask"), batch.given.get("y")
    shape = (objective.num_particles, len(x))
    sites = programs.run_guide(x, shape, {}, mask, y)
    drawn = {name: site for name, site in sites.items() if not site.observed and not site.factor}
    stop_draws, stop_guide = objective.stop_draws, objective.stop_guide
    if not stop_draws:
        for name, site in drawn.items():
            if not site.distribution.has_rsample:
                raise ValueError(
                    f"site {name!r} of the guide is a {type(site.distribution).__name__}, whose draws have no "
                    "gradient; choose method='sleep', which needs none, or objective='rws'"
                )
    values = {
        name: site.value.detach() if stop_draws else site.value.view_as(site.value) for name, site in drawn.items()
    }
    if stop_draws or stop_guide:
        leaves = {name: site.value.detach().requires_grad_(stop_guide) for name, site in drawn.items()}
        if len(drawn) == 1 and programs.guide_way is Way.VECTORIZED:  # no site depends on another's draw
            ((name, site),) = drawn.items()
            again = [site.distribution.log_prob(leaves[name])]
        else:
            scored = programs.run_guide(x, shape, leaves, mask, y)
            again = [scored[name].log_prob for name in drawn]
        log_guide = _total(x.new_zeros(shape), again)
        if stop_guide:
            at = list(leaves.values())
            slopes = torch.autograd.grad(log_guide.sum(), at, allow_unused=True, materialize_grads=True)
            log_guide = _total(
                log_guide.detach(),
                [zero_with_gradient(values[name], slope) for name, slope in zip(leaves, slopes, strict=True)],
            )
    else:
        log_guide = _total(x.new_zeros(shape), [site.log_prob for site in drawn.values()])
    latents = {name: values[name] for name, site in drawn.items() if not site.auxiliary}
    scores = programs.score(x, latents, num_particles=shape[0], **batch.given)
    return LogDensities(scores.log_likelihood, scores.total_prior, log_guide, latents)


def _total(start: Tensor, parts: list[Tensor]) -> Tensor:
    for part in parts:
        start = start + part
    return start
