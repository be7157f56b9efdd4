"""Log densities of draws: log p(x | z), log p(z) and log q(z | x) for every particle and datum.

Every objective and every estimate is a reduction of them. Contract with the programs: latents are local, inside a plate
over data, ``pyro.plate("data", n)`` or another; ``guide(x)`` draws them and ``model(x)`` scores them, both broadcast
over particles, and both take ``mask`` and ``y`` as keywords where those are used. Estimates ask less, see
`vae_pyro.Pair`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.densities.programs.running import PARTICLE_DIM, log_prob_of, masked, sample_sites
from vae_pyro.densities.sites import Program


@dataclass(frozen=True)
class LogDensities:
    """Log densities in nats, each of shape ``(particle, datum)``.

    Attributes:
        log_likelihood: log p(x | z), summed over observed sites.
        log_prior: log p(z), summed over latent sites.
        log_guide: log q(z | x), summed over latent sites.
        latents: draws of each latent site, shape ``(particle, datum, *event)``, as the model saw them, in the order in
            which the guide draws them.
        sites: log p and log q of each latent site on its own, ``{"z": (log_prior, log_guide)}``.
        distributions: p and q of each latent site, ``{"z": (prior, guide)}``, batch shape ``(particle, datum)``, in the
            order of the model.
        kl_weight: what `log_weight` multiplies log p(z) - log q(z | x) by; no other entry knows of it.
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor
    latents: dict[str, Tensor] = field(default_factory=dict)
    sites: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    distributions: dict[str, tuple[TorchDistribution, TorchDistribution]] = field(default_factory=dict)
    kl_weight: Tensor | float = 1.0

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z), shape ``(particle, datum)``."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weight(self) -> Tensor:
        """Log importance weight log p(x | z) + kl_weight (log p(z) - log q(z | x)), shape ``(particle, datum)``."""
        return self.log_likelihood + self.kl_weight * (self.log_prior - self.log_guide)

    def scale_draw_gradients(self, scale: Tensor) -> None:
        """From now on, multiply what a backward pass sends from the model through the draws into the guide.

        The model's own parameters keep their gradient. In log densities made with ``stop_guide`` the gradient of
        `log_guide` takes the same way, and is scaled with it.

        Args:
            scale: shape ``(particle, datum)``.
        """
        scale = scale.detach()

        def hook(gradient: Tensor) -> Tensor:
            return gradient * scale.reshape(scale.shape + (1,) * (gradient.dim() - scale.dim()))

        for draw in self.latents.values():
            if draw.requires_grad:
                draw.register_hook(hook)


def _require_rows(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"x is a tensor (datum, *event), got {type(x).__name__}; pass torch.as_tensor(x)")
    if x.dim() < 1 or len(x) == 0:
        raise ValueError(f"x is a tensor (datum, *event) with one datum at least, got shape {tuple(x.shape)}")


def log_densities(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 1,
    mask: Tensor | None = None,
    y: Tensor | None = None,
    stop_guide: bool = False,
    stop_draws: bool = False,
) -> LogDensities:
    """Draw latents from the guide, all particles in one vectorised pass, and score them.

    Differentiable with respect to the parameters of both programs; the gradient of ``log_guide`` with respect to the
    guide's is the sum of what comes through the draws and what comes through the density, and either can be stopped.
    Values stay the same. Draws come from torch's generator as it stands; wrap the call in
    `vae_pyro.core.isolation.isolated` to seed it.

    Args:
        model: Pyro model that keeps the contract above.
        guide: Pyro guide that keeps it.
        x: data, shape ``(datum, *event)``.
        num_particles: draws for each datum.
        mask: boolean, shape of ``x``, true where observed; passed on where given.
        y: labels or conditions, passed on where given.
        stop_guide: ``log_guide`` depends on the guide's parameters through the draws alone (first derivatives only).
            This costs a density at a point that no cache knows and its gradient there; a guide of several latent
            sites is run once more.
        stop_draws: the draws are constants, so that the guide's parameters are reached through its density alone, as
            score-function gradients require. A guide of several latent sites is run once more.

    Returns:
        Log densities, each entry of shape ``(num_particles, datum)``.

    Raises:
        ValueError: ``x`` is no tensor or has no rows, ``num_particles`` is below 1, a site lies outside the plate over
            data, both parts are stopped, or ``stop_guide`` is asked of draws that are not reparameterised.

    References:
        Roeder, Wu & Duvenaud 2017, Sticking the landing, sec. 3 (``stop_guide``). arXiv:1703.09194
    """
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    if stop_guide and stop_draws:
        raise ValueError("stop_guide and stop_draws together leave log q without a gradient; ask for one of them")
    given = {key: value for key, value in (("mask", mask), ("y", y)) if value is not None}
    _require_rows(x)
    shape = (num_particles, len(x))
    with pyro.plate("particles", num_particles, dim=PARTICLE_DIM):
        guide_trace = poutine.trace(guide).get_trace(x, **given)
        # The model sees copies: their gradient is the model's part alone, though sites of the guide depend on draws.
        seen = _with_values(guide_trace, lambda draw: draw.detach() if stop_draws else draw.view_as(draw))
        model_trace = poutine.trace(poutine.replay(model, trace=seen)).get_trace(x, **given)
        scored = guide_trace
        if stop_draws or (stop_guide and torch.is_grad_enabled()):
            if stop_guide:
                _require_reparameterized(guide_trace)
            # The same numbers as leaves of the graph. A guide of one site has its distribution already; where a later
            # site's distribution depends on an earlier draw, it has to be made again from the leaves.
            scored = _with_values(guide_trace, lambda draw: draw.detach().requires_grad_(stop_guide))
            if len(list(sample_sites(guide_trace))) > 1:
                scored = poutine.trace(poutine.replay(guide, trace=scored)).get_trace(x, **given)

    total = x.new_zeros(shape)
    log_likelihood, log_prior, log_guide = total, total, total
    latents: dict[str, Tensor] = {}
    sites: dict[str, tuple[Tensor, Tensor]] = {}
    distributions: dict[str, tuple[TorchDistribution, TorchDistribution]] = {}
    log_qs = {name: log_prob_of(name, site, shape) for name, site in sample_sites(scored) if name in model_trace}
    if scored is not guide_trace and stop_guide:
        log_qs = _through_draws(log_qs, scored, seen)
    for name, site in sample_sites(model_trace):
        if not site["is_observed"] and name not in guide_trace:
            raise ValueError(f"latent site {name!r} of the model is not in the guide; draw it in the guide as well")
        log_p = log_prob_of(name, site, shape)
        if site["is_observed"]:
            log_likelihood = log_likelihood + log_p
        else:
            log_q = log_qs[name]
            log_prior, log_guide = log_prior + log_p, log_guide + log_q
            sites[name], latents[name] = (log_p, log_q), site["value"]
            distributions[name] = (masked(site), masked(guide_trace.nodes[name]))
    drawn = [name for name, site in sample_sites(guide_trace) if not site["is_observed"]]
    for name in [name for name in drawn if name not in model_trace]:  # steps on the way to a latent
        if not scored.nodes[name]["infer"].get("is_auxiliary"):
            raise ValueError(f"site {name!r} of the guide is not in the model; only the model's latents belong there")
        log_guide = log_guide + log_prob_of(name, scored.nodes[name], shape)
    latents = {name: latents[name] for name in drawn if name in latents}
    return LogDensities(log_likelihood, log_prior, log_guide, latents, sites, distributions)


def _with_values(trace: poutine.Trace, change: Callable[[Tensor], Tensor]) -> poutine.Trace:
    """A trace with the same sites and changed draws."""
    changed = trace.copy()
    for name, site in sample_sites(trace):
        changed.nodes[name] = {**site, "value": change(site["value"])}
    return changed


def _require_reparameterized(trace: poutine.Trace) -> None:
    for name, site in sample_sites(trace):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"stop_guide requires reparameterised draws, and site {name!r} is a {type(site['fn']).__name__}, which "
                "has none"
            )


def _through_draws(log_qs: dict[str, Tensor], leaves: poutine.Trace, draws: poutine.Trace) -> dict[str, Tensor]:
    """log q of each site with its value, and the gradient of their sum with respect to the draws alone."""
    at = [leaves.nodes[name]["value"] for name in log_qs]
    total = torch.stack([log_q.sum() for log_q in log_qs.values()]).sum()
    slopes = torch.autograd.grad(total, at, allow_unused=True, materialize_grads=True)
    stopped = {}
    for (name, log_q), slope in zip(log_qs.items(), slopes, strict=True):
        stopped[name] = log_q.detach() + zero_with_gradient(draws.nodes[name]["value"], slope)
    return stopped


def zero_with_gradient(draw: Tensor, slope: Tensor) -> Tensor:
    """Surrogate with value 0 and a prescribed gradient with respect to a draw.

    Args:
        draw: shape ``(particle, datum, *event)``.
        slope: the gradient, same shape.

    Returns:
        Shape ``(particle, datum)``.
    """
    return (slope.detach() * (draw - draw.detach())).reshape(*draw.shape[:2], -1).sum(-1)
