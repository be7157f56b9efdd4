"""Discrete sites summed out of densities: those of the model that no guide draws, and classes of a marginal."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vae_pyro.densities.programs.running import Sites
from vae_pyro.densities.sites import SiteScores


def choices(values: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
    """Every combination of the values of some sites, ``(value, *event)`` each, for all particles and data."""
    for chosen in itertools.product(*values.values()):
        yield {name: value.expand(*shape, *value.shape) for name, value in zip(values, chosen, strict=True)}


def sum_out(scores: list[SiteScores], names: Mapping[str, Tensor]) -> SiteScores:
    """Densities with some sites summed out, from those at each of their values.

    Latents are taken in the order of the model: log p(z_1), log p(z_2 | z_1), ..., log p(x | z), each of which is the
    logarithm of a sum over the values with all that comes before it.
    """
    joint: Any = [sum(one.log_prior[name] for name in names) for one in scores]
    log_prior: dict[str, Tensor] = {}
    before = torch.zeros_like(scores[0].log_likelihood)
    for name in scores[0].log_prior:
        if name not in names:
            joint = [term + one.log_prior[name] for term, one in zip(joint, scores, strict=True)]
            total = torch.stack(joint).logsumexp(0)
            log_prior[name], before = total - before, total
    joint = [term + one.log_likelihood for term, one in zip(joint, scores, strict=True)]
    return SiteScores(torch.stack(joint).logsumexp(0) - before, log_prior, scores[0].sites)


def draw_summed(runs: list[tuple[dict[str, Tensor], Sites]]) -> dict[str, Tensor]:
    """Draws of the sites that are summed out, given the other latents, ``(particle, datum, *event)``.

    Args:
        runs: values of the sites, and the model's sites there, for each of `choices`.
    """
    terms = [sum(site.log_prob for site in sites.values() if not site.observed) for _, sites in runs]
    index = torch.distributions.Categorical(logits=torch.stack(terms, -1)).sample()  # type: ignore[arg-type]
    drawn = {}
    for name in runs[0][0]:
        table = torch.stack([at[name] for at, _ in runs])
        wide = index.reshape(1, *index.shape, *(1,) * (table.dim() - 3)).expand(1, *table.shape[1:])
        drawn[name] = table.gather(0, wide)[0]
    return drawn


def marginal(score: Any, at: dict[str, Tensor], classes: Mapping[str, Tensor]) -> Tensor:
    """Log density of some sites, summed over the values of others.

    Args:
        score: log density of a program's sites at values of them, ``(particle, datum)``.
        at: values of the sites, ``(particle, datum, *event)``.
        classes: values ``(value, *event)`` of the others.
    """
    shape = next(iter(at.values())).shape[:2]
    terms = [score({**some, **at}) for some in choices(classes, (shape[0], shape[1]))]
    return torch.stack(terms).logsumexp(0) if classes else terms[0]
