"""Log densities of draws: log p(x | z), log p(z) and log q(z | x) for every particle and datum.

Every objective and every estimate is a reduction of them. Contract with the programs: latents are local, inside
``pyro.plate("data", n)``; ``guide(x)`` draws them and ``model(x)`` scores them; both take ``mask`` and ``y`` as
keywords where those are used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor

type Program = Callable[..., Any]
type SiteKind = Literal["code", "class", "data"]

_PARTICLE_DIM = -2
MISSING_SITE = "x_missing"


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
            score-function gradients want them. A guide of several latent sites is run once more.

    Returns:
        Log densities, each entry of shape ``(num_particles, datum)``.

    Raises:
        ValueError: ``num_particles`` is below 1, a site lies outside ``plate("data")``, both parts are stopped, or
            ``stop_guide`` is asked of draws that are not reparameterised.

    References:
        Roeder, Wu & Duvenaud 2017, Sticking the landing, sec. 3 (``stop_guide``). arXiv:1703.09194
    """
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    if stop_guide and stop_draws:
        raise ValueError("stop_guide and stop_draws together leave log q without a gradient; ask for one of them")
    given = {key: value for key, value in (("mask", mask), ("y", y)) if value is not None}
    shape = (num_particles, len(x))
    with pyro.plate("particles", num_particles, dim=_PARTICLE_DIM):
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
            if len(list(_sample_sites(guide_trace))) > 1:
                scored = poutine.trace(poutine.replay(guide, trace=scored)).get_trace(x, **given)

    total = x.new_zeros(shape)
    log_likelihood, log_prior, log_guide = total, total, total
    latents: dict[str, Tensor] = {}
    sites: dict[str, tuple[Tensor, Tensor]] = {}
    distributions: dict[str, tuple[TorchDistribution, TorchDistribution]] = {}
    log_qs = {name: _log_prob(name, site, shape) for name, site in _sample_sites(scored) if name in model_trace}
    if scored is not guide_trace and stop_guide:
        log_qs = _through_draws(log_qs, scored, seen)
    for name, site in _sample_sites(model_trace):
        if not site["is_observed"] and name not in guide_trace:
            raise ValueError(f"latent site {name!r} of the model is not in the guide; draw it in the guide as well")
        log_p = _log_prob(name, site, shape)
        if site["is_observed"]:
            log_likelihood = log_likelihood + log_p
        else:
            log_q = log_qs[name]
            log_prior, log_guide = log_prior + log_p, log_guide + log_q
            sites[name], latents[name] = (log_p, log_q), site["value"]
            distributions[name] = (_masked(site), _masked(guide_trace.nodes[name]))
    for name, _ in _sample_sites(guide_trace):
        if name not in model_trace:
            raise ValueError(f"site {name!r} of the guide is not in the model; only the model's latents belong there")
    latents = {name: latents[name] for name, _ in _sample_sites(guide_trace)}
    return LogDensities(log_likelihood, log_prior, log_guide, latents, sites, distributions)


class GuideDraws(NamedTuple):
    """Draws of a guide.

    Attributes:
        latents: draws of each latent site, ``(particle, datum, *event)``.
        log_guide: log q(z | x), nats, ``(particle, datum)``.
        kinds: what each site is: ``data`` is what is missing of x (site ``x_missing``, whose density is p(x | z) in
            both programs); ``class`` is a site of discrete support, whose values are names and have no mean; every
            other site is a ``code``. The first two are in the KL as any latent is, and no part of a representation.
        distributions: q of each site, batch shape that broadcasts to ``(particle, datum)``.
    """

    latents: dict[str, Tensor]
    log_guide: Tensor
    kinds: dict[str, SiteKind]
    distributions: dict[str, TorchDistribution]


@torch.no_grad()
def draw_latents(
    guide: Program, x: Tensor, *, num_particles: int, mask: Tensor | None = None, y: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw all particles of every latent site in one run of the guide, so that an encoder runs once for a datum.

    Args:
        guide: Pyro guide that keeps the contract above.
        x: data, shape ``(datum, *event)``.
        num_particles: draws for each datum.
        mask: boolean, shape of ``x``, true where observed; passed on where given.
        y: labels or conditions, passed on where given.

    Returns:
        Draws ``{site: (particle, datum, *event)}``, and log q(z | x) of shape ``(particle, datum)``.
    """
    drawn = draw_sites(guide, x, num_particles=num_particles, mask=mask, y=y)
    return drawn.latents, drawn.log_guide


@torch.no_grad()
def draw_sites(
    guide: Program, x: Tensor, *, num_particles: int, mask: Tensor | None = None, y: Tensor | None = None
) -> GuideDraws:
    """As `draw_latents`, with what each site is and its distribution."""
    given = {key: value for key, value in (("mask", mask), ("y", y)) if value is not None}
    with pyro.plate("particles", num_particles, dim=_PARTICLE_DIM):
        trace = poutine.trace(guide).get_trace(x, **given)
    shape = (num_particles, len(x))
    latents: dict[str, Tensor] = {}
    kinds: dict[str, SiteKind] = {}
    distributions: dict[str, TorchDistribution] = {}
    log_guide = x.new_zeros(shape)
    for name, site in _sample_sites(trace):
        log_guide = log_guide + _log_prob(name, site, shape)
        value = site["value"]
        latents[name] = value.expand(*shape, *value.shape[value.dim() - site["fn"].event_dim :])
        kinds[name] = "data" if name == MISSING_SITE else "class" if _discrete(site["fn"]) else "code"
        distributions[name] = _masked(site)
    return GuideDraws(latents, log_guide, kinds, distributions)


@torch.no_grad()
def score_latents(
    model: Program, x: Tensor, latents: dict[str, Tensor], *, mask: Tensor | None = None, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Densities of the model at given draws.

    Args:
        model: Pyro model that keeps the contract above.
        x: data, shape ``(datum, *event)``.
        latents: draws of every latent site, ``(particle, datum, *event)``.
        mask: boolean, shape of ``x``, true where observed; passed on where given.
        y: labels or conditions, passed on where given.

    Returns:
        log p(x | z) and log p(z), each of shape ``(particle, datum)``.

    Raises:
        ValueError: a latent site of the model is not among the draws.
    """
    scored = score_sites(model, x, latents, mask=mask, y=y)
    log_prior = torch.zeros_like(scored.log_likelihood)
    for value in scored.log_prior.values():
        log_prior = log_prior + value
    return scored.log_likelihood, log_prior


class SiteScores(NamedTuple):
    """Densities of a model at given draws, site by site.

    Attributes:
        log_likelihood: log p(x | z), summed over observed sites, nats, ``(particle, datum)``.
        log_prior: log p of each latent site, in the order of the model, nats, ``(particle, datum)``.
        outputs: p(x | z) of each observed site.
        priors: p of each latent site, in the order of the model.
    """

    log_likelihood: Tensor
    log_prior: dict[str, Tensor]
    outputs: dict[str, TorchDistribution]
    priors: dict[str, TorchDistribution]


@torch.no_grad()
def score_sites(
    model: Program, x: Tensor, latents: dict[str, Tensor], *, mask: Tensor | None = None, y: Tensor | None = None
) -> SiteScores:
    """As `score_latents`, with each latent site's density on its own and the distributions of what is observed."""
    given = {key: value for key, value in (("mask", mask), ("y", y)) if value is not None}
    num_particles = len(next(iter(latents.values())))
    drawn = poutine.Trace()
    for name, value in latents.items():
        drawn.add_node(name, type="sample", name=name, is_observed=False, value=value, infer={})
    with pyro.plate("particles", num_particles, dim=_PARTICLE_DIM):
        trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x, **given)
    shape = (num_particles, len(x))
    log_likelihood = x.new_zeros(shape)
    log_prior: dict[str, Tensor] = {}
    outputs: dict[str, TorchDistribution] = {}
    priors: dict[str, TorchDistribution] = {}
    for name, site in _sample_sites(trace):
        log_p = _log_prob(name, site, shape)
        if site["is_observed"]:
            log_likelihood = log_likelihood + log_p
            outputs[name] = site["fn"]
        elif name in latents:
            log_prior[name], priors[name] = log_p, _masked(site)
        else:
            raise ValueError(f"latent site {name!r} of the model is not in the guide; draw it in the guide as well")
    return SiteScores(log_likelihood, log_prior, outputs, priors)


def _discrete(distribution: TorchDistribution) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:  # it does not say
        return False


def _sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site):
            yield name, site


def _with_values(trace: poutine.Trace, change: Callable[[Tensor], Tensor]) -> poutine.Trace:
    """A trace with the same sites and changed draws."""
    changed = trace.copy()
    for name, site in _sample_sites(trace):
        changed.nodes[name] = {**site, "value": change(site["value"])}
    return changed


def _require_reparameterized(trace: poutine.Trace) -> None:
    for name, site in _sample_sites(trace):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"stop_guide wants reparameterised draws, and site {name!r} is a {type(site['fn']).__name__}, which "
                "has none"
            )


def _through_draws(log_qs: dict[str, Tensor], leaves: poutine.Trace, draws: poutine.Trace) -> dict[str, Tensor]:
    """log q of each site with its value, and the gradient of their sum with respect to the draws alone."""
    at = [leaves.nodes[name]["value"] for name in log_qs]
    total = torch.stack([log_q.sum() for log_q in log_qs.values()]).sum()
    slopes = torch.autograd.grad(total, at, allow_unused=True, materialize_grads=True)
    stopped = {}
    for (name, log_q), slope in zip(log_qs.items(), slopes, strict=True):
        stopped[name] = log_q.detach() + zero_with_slope(draws.nodes[name]["value"], slope)
    return stopped


def zero_with_slope(draw: Tensor, slope: Tensor) -> Tensor:
    """Zero whose gradient with respect to a draw is given.

    Args:
        draw: shape ``(particle, datum, *event)``.
        slope: the gradient, same shape.

    Returns:
        Shape ``(particle, datum)``.
    """
    return (slope.detach() * (draw - draw.detach())).reshape(*draw.shape[:2], -1).sum(-1)


def _log_prob(name: str, site: dict[str, Any], shape: tuple[int, int]) -> Tensor:
    frames = [frame.name for frame in site["cond_indep_stack"] if frame.vectorized]
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if "data" not in frames or log_prob.dim() > 2:
        raise ValueError(
            f"site {name!r} has log density of shape {tuple(log_prob.shape)} under the plates {frames or 'none'}; the "
            "ledger wants one number for each particle and datum: put the site in pyro.plate('data', n), and declare "
            "its other dimensions with .to_event()"
        )
    # A subsampling plate's scale N / B is left out on purpose: these are densities of data, not terms of a loss.
    masked: Tensor = scale_and_mask(log_prob, mask=site["mask"])
    return masked.expand(shape)


def _masked(site: dict[str, Any]) -> TorchDistribution:
    return site["fn"] if site["mask"] is None else site["fn"].mask(site["mask"])


Ledger = LogDensities
