"""Sites of a pair's programs: draws of the guide, densities of the model at them, site by site.

Contract with the programs: latents are local, inside ``pyro.plate("data", n)``; ``guide(x)`` draws them and
``model(x)`` scores them; both take ``mask`` and ``y`` as keywords where those are used. What other programs need is
found out by `vae_pyro.densities.programs.programs`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.densities.programs.running import Sites, Way, run

type Program = Callable[..., Any]
type SiteKind = Literal["code", "class", "data"]
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

    @classmethod
    def of(cls, sites: Sites, nothing: Tensor) -> "GuideDraws":
        """The draws of a run.

        Sites that the guide observes or adds as factors are terms of a training, and no part of q. Auxiliary ones are
        part of its density, and no latents of the model.

        Args:
            sites: of the guide.
            nothing: zeros, ``(particle, datum)``.
        """
        drawn = {name: site for name, site in sites.items() if not site.observed and not site.factor}
        log_guide = nothing
        for site in drawn.values():
            log_guide = log_guide + site.log_prob
        latents = {name: site for name, site in drawn.items() if not site.auxiliary}
        distributions = {name: site.distribution for name, site in latents.items()}
        kinds: dict[str, SiteKind] = {
            name: "data" if name == MISSING_SITE else "class" if is_discrete(fn) else "code"
            for name, fn in distributions.items()
        }
        return cls({name: site.value for name, site in latents.items()}, log_guide, kinds, distributions)


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
    shape = (num_particles, len(x))
    return GuideDraws.of(run(Way.VECTORIZED, lambda _: guide(x, **given), {}, shape), x.new_zeros(shape))


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
    given = {key: value for key, value in (("mask", mask), ("y", y)) if value is not None}
    shape = (len(next(iter(latents.values()))), len(x))
    sites = run(Way.VECTORIZED, lambda _: model(x, **given), latents, shape)
    scored = SiteScores.of(sites, latents, x.new_zeros(shape))
    return scored.log_likelihood, scored.total_prior


class SiteScores(NamedTuple):
    """Densities of a model at given draws, site by site.

    Attributes:
        log_likelihood: log p(x | z), summed over observed sites, nats, ``(particle, datum)``.
        log_prior: log p of each latent site, in the order of the model, nats, ``(particle, datum)``.
        sites: the run that they are of.
    """

    log_likelihood: Tensor
    log_prior: dict[str, Tensor]
    sites: Sites

    @classmethod
    def of(
        cls, sites: Sites, latents: dict[str, Tensor], nothing: Tensor, observed: tuple[str, ...] | None = None
    ) -> "SiteScores":
        """The densities of a run.

        Args:
            sites: of the model.
            latents: sites whose values were fixed.
            nothing: zeros, ``(particle, datum)``.
            observed: sites that log p(x | z) is summed over; ``None`` for all that are observed.

        Raises:
            ValueError: a latent site of the model is not among the draws.
        """
        log_likelihood = nothing
        log_prior: dict[str, Tensor] = {}
        for name, site in sites.items():
            if site.observed:
                if observed is None or name in observed:
                    log_likelihood = log_likelihood + site.log_prob
            elif name in latents:
                log_prior[name] = site.log_prob
            else:
                raise ValueError(f"latent site {name!r} of the model is not in the guide; draw it in the guide as well")
        return cls(log_likelihood, log_prior, sites)

    @property
    def total_prior(self) -> Tensor:
        """log p(z), summed over latent sites, ``(particle, datum)``."""
        total = torch.zeros_like(self.log_likelihood)
        for value in self.log_prior.values():
            total = total + value
        return total

    @property
    def outputs(self) -> dict[str, TorchDistribution]:
        """p(x | z) of each observed site."""
        return {name: site.distribution for name, site in self.sites.items() if site.observed}

    @property
    def priors(self) -> dict[str, TorchDistribution]:
        """p of each latent site, in the order of the model."""
        return {name: self.sites[name].distribution for name in self.log_prior}


def is_discrete(distribution: TorchDistribution) -> bool:
    """Whether a distribution says that its support is discrete."""
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:  # it does not say
        return False
