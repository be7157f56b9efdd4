"""What every objective is: a Pyro `ELBO` with a weight of the KL and figures of its last loss; and Pyro's own two."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from pyro.util import warn_if_nan
from torch import Tensor

from vae_pyro.core.registry import Registry
from vae_pyro.densities.log_densities import Ledger, Program, log_densities

OBJECTIVES: Registry[ELBO] = Registry("objective")

type Particles = Annotated[int, Field(ge=1)]


class KLWeight(Messenger):
    """Effect handler that multiplies the log densities of latent sites, and so the KL, by a weight.

    As a context around model and guide, it turns the ELBO of Pyro's losses into ``E[log p(x | z)] - weight KL``; a
    schedule changes `weight` between steps. The ledger holds densities without scales and does not see it: an
    objective made from one has `LedgerELBO.kl_weight`.

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
    """What a fit reads of, and writes into, any objective.

    Attributes:
        kl_weight: 0-d tensor that multiplies the KL, 1 at first; ``kl_weight.fill_(0.3)`` between steps changes it, in
            a compiled step as well. It stays where it was made: a 0-d tensor works with those of any device and type.
        metrics: of the last loss, 0-d tensors without gradient: ``reconstruction``, log p(x | z), and ``kl``,
            log q(z | x) - log p(z) of the draws without any weight; each averaged over particles and summed over data,
            in nats.
    """

    kl_weight: Tensor
    metrics: dict[str, Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
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


class TracedObjective(Objective):
    """For Pyro's own losses, value and gradient unchanged: weighs the KL by `KLWeight`, and keeps the figures.

    Args:
        num_particles: draws of z for each datum.
    """

    def __init__(self, *, num_particles: Particles = 1) -> None:
        # One data plate is the contract, and naming it saves a run of both programs to guess it.
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=num_particles > 1)

    def _get_traces(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Any]:
        weight = KLWeight(self.kl_weight)
        for model_trace, guide_trace in super()._get_traces(weight(model), weight(guide), args, kwargs):
            with torch.no_grad():
                self.metrics = {
                    "reconstruction": _total(model_trace, observed=True) / self.num_particles,
                    "kl": (_total(guide_trace) - _total(model_trace)) / self.num_particles,
                }
            yield model_trace, guide_trace


def _is_latent(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)


def _total(trace: Any, *, observed: bool = False) -> Tensor:
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and site["is_observed"] == observed]
    return torch.stack([site["unscaled_log_prob"].sum() for site in sites]).sum()


@OBJECTIVES.register("elbo")
class TraceELBO(TracedObjective, Trace_ELBO):
    """Evidence lower bound: Pyro's `Trace_ELBO`.

    ``E_q[log p(x | z)] - kl_weight E_q[log q(z | x) - log p(z)]``, both from draws.

    Args:
        num_particles: draws of z for each datum.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eq. 2. arXiv:1312.6114
    """


@OBJECTIVES.register("elbo_analytic")
class TraceMeanFieldELBO(TracedObjective, TraceMeanField_ELBO):
    """Evidence lower bound with the KL in closed form where it has one: Pyro's `TraceMeanField_ELBO`.

    ``E_q[log p(x | z)] - kl_weight KL(q(z | x) || p(z))``. A site whose KL has no closed form (a mixture prior, a flow)
    falls back on draws. ``metrics["kl"]`` is that of the draws all the same.

    Of several latent sites, each KL is taken at the draws of the others. That is right where the guide draws them in
    the order of the model (structure ``ladder``). Where it does not (``bottom_up``) Pyro warns, and with an exact guide
    of two layers is off by Jeffreys' divergence of q from the product of its marginals; here it is refused.

    Args:
        num_particles: draws of z for each datum.

    Raises:
        ValueError: on the first loss, where model and guide draw the latents in different orders.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eqs. 3 and 10. arXiv:1312.6114
    """

    def _get_traces(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Any]:
        for model_trace, guide_trace in super()._get_traces(model, guide, args, kwargs):
            drawn = [name for name, site in guide_trace.nodes.items() if _is_latent(site) and name in model_trace]
            scored = [name for name, site in model_trace.nodes.items() if _is_latent(site) and name in guide_trace]
            if drawn != scored:
                raise ValueError(
                    f"objective 'elbo_analytic' wants the latents drawn by the guide in the order of the model, "
                    f"{', '.join(scored)}, got {', '.join(drawn)}: a KL given a later draw is not that of the ELBO; "
                    "choose 'elbo', or structure 'ladder'"
                )
            yield model_trace, guide_trace


class LedgerELBO(Objective):
    """Base of the objectives that are reductions of the ledger; a variant writes `bound`, and little else.

    ``pyro.infer.SVI`` takes it as it stands. Densities are those of the data: a scale of ``poutine.scale`` or of a
    subsampling plate does not enter.

    >>> @OBJECTIVES.register("doubtful")
    ... class Doubtful(LedgerELBO):
    ...     def __init__(self, *, num_particles: Particles = 1, doubt: float = 2.0) -> None:
    ...         super().__init__(num_particles=num_particles)
    ...         self.doubt = doubt
    ...     def bound(self, ledger: Ledger) -> Tensor:
    ...         return (ledger.log_weight / self.doubt).mean(0)
    >>> str(OBJECTIVES.resolve("doubtful:doubt=3"))
    'doubtful:num_particles=1,doubt=3.0'
    >>> OBJECTIVES.unregister("doubtful")

    Args:
        num_particles: draws of z for each datum.

    Attributes:
        stop_guide: the ledger is made with that option of `vae_pyro.densities.log_densities.log_densities`.
        stop_draws: likewise; without it the guide has to be reparameterised.
    """

    stop_guide: ClassVar[bool] = False
    stop_draws: ClassVar[bool] = False

    def __init__(self, *, num_particles: Particles = 1) -> None:
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=num_particles > 1)

    @abstractmethod
    def bound(self, ledger: Ledger) -> Tensor:
        """Value of the objective, which rises, for each datum in nats, shape ``(datum,)``.

        Args:
            ledger: entries of shape ``(particle, datum)``; its ``kl_weight``, and so its ``log_weight``, is that of
                the objective.
        """

    def surrogate(self, ledger: Ledger) -> Tensor | None:
        """What to differentiate in place of the bound, shape ``(datum,)``; ``None`` for the bound itself."""
        return None

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor, **kwargs: Any) -> Tensor:
        """Negative bound summed over data, in nats, 0-d; its gradient is the objective's gradient estimate.

        Args:
            model: Pyro model, see `vae_pyro.densities.log_densities`.
            guide: Pyro guide.
            x: data, shape ``(datum, *event)``.
            kwargs: ``mask`` and ``y``, see `vae_pyro.densities.log_densities.log_densities`.

        Raises:
            ValueError: the programs do not keep the contract, or the guide cannot have this objective.
        """
        ledger = log_densities(
            model,
            guide,
            x,
            num_particles=self.num_particles,
            stop_guide=self.stop_guide,
            stop_draws=self.stop_draws,
            **kwargs,
        )
        if not self.stop_draws:
            _require_reparameterized(self, ledger)
        reconstruction = ledger.log_likelihood.detach().mean(0).sum()
        kl = (ledger.log_guide - ledger.log_prior).detach().mean(0).sum()
        self.metrics = {"reconstruction": reconstruction, "kl": kl}
        ledger = replace(ledger, kl_weight=self.kl_weight)
        loss = -self.bound(ledger).sum()
        surrogate = self.surrogate(ledger) if torch.is_grad_enabled() else None
        if surrogate is None:
            return loss
        gradient = -surrogate.sum()
        return loss.detach() + (gradient - gradient.detach())

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

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)


def _require_reparameterized(objective: LedgerELBO, ledger: Ledger) -> None:
    for name, (_, guide) in ledger.distributions.items():
        if not guide.has_rsample:
            raise ValueError(
                f"objective {type(objective).__name__!r} wants reparameterised draws, and site {name!r} of the guide "
                f"is a {type(guide).__name__}, which has none; choose 'elbo', 'rws' or 'tvo'"
            )
