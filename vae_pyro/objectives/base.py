"""Base classes of the objectives: Pyro `ELBO`s with a weight of the KL, which keep the terms of their last loss.

A variant is a file beside this one that registers a class in `OBJECTIVES`: a subclass of `MonteCarloObjective`, where
the objective is a reduction of log densities over particles, or of `TracedObjective` and a loss of Pyro's.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pyro.infer.elbo import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine.messenger import Messenger
from pyro.util import warn_if_nan
from torch import Tensor

from vae_pyro.core.registry import ClassRegistry
from vae_pyro.densities.log_density import LogDensities, log_densities
from vae_pyro.densities.sites import Program

type Particles = Annotated[int, Field(ge=1)]
type Weight = Annotated[float, Field(ge=0)]


class KLWeight(Messenger):
    """Effect handler that multiplies the log densities of latent sites, and so the KL, by a weight.

    As a context around model and guide, it turns the ELBO of Pyro's losses into ``E[log p(x | z)] - weight KL``; a
    schedule changes `weight` between steps. `LogDensities` are without scales and not changed by it: an objective made
    from them has `MonteCarloObjective.kl_weight`.

    Args:
        weight: not negative; 1 is the ELBO.

    References:
        Bowman et al. 2016, Generating sentences from a continuous space, sec. 3.1 (KL annealing). arXiv:1511.06349
        Higgins et al. 2017, beta-VAE, eq. 4 (a constant weight).
    """

    def __init__(self, weight: float | Tensor = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


class Objective(ELBO):
    """Interface between a fit and its objective.

    Args:
        num_particles: draws of z for each datum.

    Attributes:
        kl_weight: 0-d tensor that multiplies the KL, 1 at first; ``kl_weight.fill_(0.3)`` between steps changes it, in
            a compiled step as well. It stays where it was made: a 0-d tensor works with those of any device and type.
        kl_factor: the constant c of an objective whose expectation is ``E_q[log p(x | z)] - kl_weight c KL``; ``None``
            for every other objective.
        importance_weighted: whether the objective is a bound from the mean of importance weights over particles, which
            may rise while the ELBO falls; epochs of a fit are then judged by the bound on validation data.
        metrics: of the last loss, 0-d tensors without gradient: ``reconstruction``, log p(x | z), and ``kl``,
            log q(z | x) - log p(z) of the draws without any weight; each averaged over particles and summed over data,
            in nats.
    """

    kl_weight: Tensor
    kl_factor: float | None = None
    importance_weighted: ClassVar[bool] = False
    metrics: dict[str, Tensor]

    def __init__(self, *, num_particles: Particles = 1) -> None:
        # One data plate is the contract, and stating it saves a run of both programs to guess it.
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=num_particles > 1)
        self.kl_weight = torch.ones((), dtype=torch.float32)
        self.metrics = {}

    @property
    def reconstruction(self) -> Tensor:
        """``metrics["reconstruction"]``."""
        return self.metrics["reconstruction"]

    @property
    def kl(self) -> Tensor:
        """``metrics["kl"]``."""
        return self.metrics["kl"]


OBJECTIVES: ClassRegistry[Objective] = ClassRegistry("objective")


class TracedObjective(Objective):
    """Mixin for Pyro's own losses, value and gradient unchanged: weighs the KL by `KLWeight`, and keeps the metrics."""

    def _get_traces(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Any]:
        weight = KLWeight(self.kl_weight)
        for model_trace, guide_trace in super()._get_traces(weight(model), weight(guide), args, kwargs):
            with torch.no_grad():
                self.metrics = {
                    "reconstruction": _total(model_trace, observed=True) / self.num_particles,
                    "kl": (_total(guide_trace) - _total(model_trace)) / self.num_particles,
                }
            yield model_trace, guide_trace


def _total(trace: Any, *, observed: bool = False) -> Tensor:
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and site["is_observed"] == observed]
    return torch.stack([site["unscaled_log_prob"].sum() for site in sites]).sum()


class DifferentiableLoss:
    """Mixin of the objectives whose loss and gradient are those of one differentiable loss."""

    retain_graph: bool | None

    @abstractmethod
    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Negative objective summed over data, in nats, 0-d."""

    @torch.no_grad()
    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Value of `differentiable_loss`."""
        return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Value of `differentiable_loss`, after its gradient has been added to that of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        value = loss.item()
        warn_if_nan(value, "loss")
        return value


class MonteCarloObjective(DifferentiableLoss, Objective):
    """Base of the objectives that are reductions of log densities over particles; a variant defines `bound`.

    ``pyro.infer.SVI`` takes it as it is. Densities are those of the data: a scale of ``poutine.scale`` or of a
    subsampling plate does not enter.

    >>> @OBJECTIVES.register("doubtful")
    ... class Doubtful(MonteCarloObjective):
    ...     def __init__(self, *, num_particles: Particles = 1, doubt: float = 2.0) -> None:
    ...         super().__init__(num_particles=num_particles)
    ...         self.doubt = doubt
    ...     def bound(self, densities: LogDensities) -> Tensor:
    ...         return (densities.log_weight / self.doubt).mean(0)
    >>> str(OBJECTIVES.resolve("doubtful:doubt=3"))
    'doubtful:num_particles=1,doubt=3.0'
    >>> OBJECTIVES.unregister("doubtful")

    Args:
        num_particles: draws of z for each datum.

    Attributes:
        stop_guide: option of `vae_pyro.densities.log_density.log_densities` that the objective requires.
        stop_draws: likewise; without it the guide has to be reparameterised.

    References:
        Mnih & Rezende 2016, Variational inference for Monte Carlo objectives, sec. 2. arXiv:1602.06725
    """

    stop_guide: ClassVar[bool] = False
    stop_draws: ClassVar[bool] = False

    @abstractmethod
    def bound(self, densities: LogDensities) -> Tensor:
        """Value of the objective, which rises, for each datum in nats, shape ``(datum,)``.

        Args:
            densities: entries of shape ``(particle, datum)``; their ``kl_weight``, and so their ``log_weight``, is
                that of the objective.
        """

    def surrogate(self, densities: LogDensities) -> Tensor | None:
        """Differentiated in place of the bound, shape ``(datum,)``; ``None`` for the bound itself."""
        return None

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor, **kwargs: Any) -> Tensor:
        """Negative bound summed over data, in nats, 0-d; its gradient is the objective's gradient estimate.

        Args:
            model: Pyro model, see `vae_pyro.Pair`.
            guide: Pyro guide.
            x: data, shape ``(datum, *event)``.
            kwargs: ``mask`` and ``y``, see `vae_pyro.densities.log_density.log_densities`.

        Raises:
            ValueError: the programs do not keep the contract, or the guide does not suit the objective.
        """
        densities = log_densities(
            model,
            guide,
            x,
            num_particles=self.num_particles,
            stop_guide=self.stop_guide,
            stop_draws=self.stop_draws,
            **kwargs,
        )
        if not self.stop_draws:
            _require_reparameterized(self, densities)
        reconstruction = densities.log_likelihood.detach().mean(0).sum()
        kl = (densities.log_guide - densities.log_prior).detach().mean(0).sum()
        self.metrics = {"reconstruction": reconstruction, "kl": kl}
        densities = replace(densities, kl_weight=self.kl_weight)
        loss = -self.bound(densities).sum()
        surrogate = self.surrogate(densities) if torch.is_grad_enabled() else None
        if surrogate is None:
            return loss
        gradient = -surrogate.sum()
        return loss.detach() + (gradient - gradient.detach())

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)


def _require_reparameterized(objective: MonteCarloObjective, densities: LogDensities) -> None:
    for name, (_, guide) in densities.distributions.items():
        if not guide.has_rsample:
            others = [repr(other) for other in OBJECTIVES if getattr(OBJECTIVES[other], "stop_draws", False)]
            raise ValueError(
                f"objective {type(objective).__name__!r} requires reparameterised draws, and site {name!r} of the "
                f"guide is a {type(guide).__name__}, which has none; choose 'elbo', {' or '.join(others)}"
            )
