"""Sites of a pair's programs: draws of the guide, densities of the model at them, site by site.

Contract with the programs: latents are local, inside ``pyro.plate("data", n)``; ``guide(x)`` draws them and
``model(x)`` scores them; both take ``mask`` and ``y`` as keywords where those are used.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor

type Program = Callable[..., Any]
type SiteKind = Literal["code", "class", "data"]
PARTICLE_DIM = -2
MISSING_SITE = "x_missing"


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
        guide: Pyro guide that keeps the contract of this module.
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
    with pyro.plate("particles", num_particles, dim=PARTICLE_DIM):
        trace = poutine.trace(guide).get_trace(x, **given)
    shape = (num_particles, len(x))
    latents: dict[str, Tensor] = {}
    kinds: dict[str, SiteKind] = {}
    distributions: dict[str, TorchDistribution] = {}
    log_guide = x.new_zeros(shape)
    for name, site in sample_sites(trace):
        log_guide = log_guide + log_prob_of(name, site, shape)
        value = site["value"]
        latents[name] = value.expand(*shape, *value.shape[value.dim() - site["fn"].event_dim :])
        kinds[name] = "data" if name == MISSING_SITE else "class" if _discrete(site["fn"]) else "code"
        distributions[name] = masked(site)
    return GuideDraws(latents, log_guide, kinds, distributions)


@torch.no_grad()
def score_latents(
    model: Program, x: Tensor, latents: dict[str, Tensor], *, mask: Tensor | None = None, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Densities of the model at given draws.

    Args:
        model: Pyro model that keeps the contract of this module.
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
    with pyro.plate("particles", num_particles, dim=PARTICLE_DIM):
        trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x, **given)
    shape = (num_particles, len(x))
    log_likelihood = x.new_zeros(shape)
    log_prior: dict[str, Tensor] = {}
    outputs: dict[str, TorchDistribution] = {}
    priors: dict[str, TorchDistribution] = {}
    for name, site in sample_sites(trace):
        log_p = log_prob_of(name, site, shape)
        if site["is_observed"]:
            log_likelihood = log_likelihood + log_p
            outputs[name] = site["fn"]
        elif name in latents:
            log_prior[name], priors[name] = log_p, masked(site)
        else:
            raise ValueError(f"latent site {name!r} of the model is not in the guide; draw it in the guide as well")
    return SiteScores(log_likelihood, log_prior, outputs, priors)


def _discrete(distribution: TorchDistribution) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:  # it does not say
        return False


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site):
            yield name, site


def log_prob_of(name: str, site: dict[str, Any], shape: tuple[int, int]) -> Tensor:
    frames = [frame.name for frame in site["cond_indep_stack"] if frame.vectorized]
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if "data" not in frames or log_prob.dim() > 2:
        raise ValueError(
            f"site {name!r} has log density of shape {tuple(log_prob.shape)} under the plates {frames or 'none'}; it "
            "must be one number for each particle and datum: put the site in pyro.plate('data', n), and declare its "
            "other dimensions with .to_event()"
        )
    # A subsampling plate's scale N / B is left out on purpose: these are densities of data, not terms of a loss.
    masked: Tensor = scale_and_mask(log_prob, mask=site["mask"])
    return masked.expand(shape)


def masked(site: dict[str, Any]) -> TorchDistribution:
    return site["fn"] if site["mask"] is None else site["fn"].mask(site["mask"])
