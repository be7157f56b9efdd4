"""Divergences of guide and prior, site by site, in closed form where there is one; what objectives on the KL share."""

from collections.abc import Iterator

from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from vae_pyro.densities.log_density import LogDensities


def factors_of(distribution: TorchDistribution) -> TorchDistribution | None:
    """The univariate distributions of a product over one event dimension, else ``None``."""
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        base = distribution.base_dist
        return None if base.event_shape else base
    return None


def conditional_sites(densities: LogDensities) -> set[str]:
    """Sites whose closed KL, given the draws of the other sites, averages to E_q[log q - log p] of that site.

    Those whose prior depends on nothing that the guide draws later: for layers, all of a top-down guide (each KL is
    conditional on the layers above), and the topmost alone of a bottom-up one. KL(q(z | x) || p(z | z2)) at a z2 drawn
    for that very z is another quantity, which would require a z independent of z2. (With an exact guide it is too
    large, by Jeffreys' divergence of q(z, z2 | x) from the product of its marginals.)

    Args:
        densities: their ``latents`` are in the order of the guide, their ``distributions`` in that of the model.
    """
    place = {name: number for number, name in enumerate(densities.latents)}
    found, latest = set(), -1
    for name in densities.distributions:
        if place[name] > latest:
            found.add(name)
        latest = max(latest, place[name])
    return found


def kl_terms(densities: LogDensities) -> Iterator[Tensor]:
    """E_q[log q - log p] of each site: its KL in the closed form where there is one, see `conditional_sites`.

    Yields:
        ``(datum, dimension)`` where both distributions are products, with a closed KL or, for sites that are not
        conditional, the draws' own; ``(datum, 1)`` else.
    """
    conditional = conditional_sites(densities)
    for name, (prior, guide) in densities.distributions.items():
        of_prior, of_guide = factors_of(prior), factors_of(guide)
        try:
            if name not in conditional:
                raise NotImplementedError
            if of_prior is not None and of_guide is not None:
                kl = kl_divergence(of_guide, of_prior)
            else:
                kl = kl_divergence(guide, prior).unsqueeze(-1)
        except NotImplementedError:
            if name not in conditional and of_prior is not None and of_guide is not None:
                draw = densities.latents[name]
                kl = of_guide.log_prob(draw) - of_prior.log_prob(draw)
            else:
                log_p, log_q = densities.sites[name]
                kl = (log_q - log_p).unsqueeze(-1)
        yield kl.mean(0)


def only_site(densities: LogDensities, objective: str) -> tuple[Tensor, TorchDistribution, TorchDistribution]:
    """Draws, prior and guide of the one latent site."""
    if len(densities.distributions) != 1:
        raise ValueError(f"{objective!r} requires one latent site, got {', '.join(densities.distributions) or 'none'}")
    ((name, (prior, guide)),) = densities.distributions.items()
    return densities.latents[name], prior, guide
