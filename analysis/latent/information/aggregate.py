"""The aggregate posterior of a pair: draws, closed forms where there are some, and densities of all pairs of data."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from analysis.latent.information.gaussians import MixtureMarginals, SiteGaussian, as_float64, gaussian_of, marginals_of
from analysis.stats.mixtures import (
    Densities,
    full_rank_log_density,
    gaussian_densities,
    gaussian_mixture_log_density,
    pair_densities,
)
from vae_pyro.core.isolation import isolated
from vae_pyro.densities.programs.simulation import simulate
from vae_pyro.densities.sites import SiteKind
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, Block, PairData, pieces, take

type Array = np.ndarray[Any, Any]

# Draws of each datum for comparisons of all pairs; two, so that the Monte Carlo error is known.
_PAIR_DRAWS = 2
# Numbers that a block of comparisons holds.
_PAIR_NUMBERS = 4_000_000


@dataclass(frozen=True)
class AggregateDraws:
    """Draws of the guide at all data, and what is known of it in closed form.

    The sites are the codes of `vae_pyro.densities.sites.draw_sites`. A class is summed out of their densities;
    what is missing of x is left out.

    Attributes:
        z: all latents of all sites side by side, shape ``(particle, datum, latent)``.
        log_prior: log p(z), nats, shape ``(particle, datum)``.
        sizes: latents of each site.
        events: event shape of each site.
        loc: of each latent's Gaussian q(z_d | x), shape ``(datum, latent)``; ``None`` where a site is not Gaussian, or
            depends on another site's draw, or a class is drawn.
        scale: likewise, of the marginal.
        diagonal: the latents are independent Gaussians given x.
        scale_tril: Cholesky factors of the data ``kept``, shape ``(kept, latent, latent)``, where the only site is a
            Gaussian that is not diagonal.
        kept: rows whose factors there are, rising.
        classes: values of the site that is a class, ``{"y": (value,)}``; empty where there is none.
        bare: the guide has no sites but these.
    """

    z: Array
    log_prior: Array
    sizes: dict[str, int]
    events: dict[str, tuple[int, ...]]
    loc: Array | None
    scale: Array | None
    diagonal: bool
    scale_tril: Array | None
    kept: Array
    classes: dict[str, Tensor]
    bare: bool

    @property
    def closed(self) -> bool:
        """The joint density of all pairs needs no run of the guide."""
        return self.diagonal or self.scale_tril is not None


class AggregateReducer:
    """Collects two draws of each datum's latents, with the prior's density there, from the blocks of a walk.

    Args:
        data: the pair and its data.
        compared: rows whose Cholesky factors are kept.
    """

    def __init__(self, data: PairData, compared: Array) -> None:
        self._programs, self._kept = data.programs, np.sort(compared)
        self._kinds: dict[str, SiteKind] = {}
        self._classes: dict[str, Tensor] = {}
        self._events: dict[str, tuple[int, ...]] = {}
        self._parts: dict[str, list[Array]] = {}
        self._closed, self._full = True, False

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add the data of a block, of at least two draws each.

        Raises:
            ValueError: no site is a code, several are classes, or one has values that cannot be listed.
        """
        with isolated():
            self._add(block)

    def _add(self, block: Block) -> None:
        sites, labels = self._sites(block.kinds)
        latents = take(block.latents, slice(_PAIR_DRAWS))
        scores = self._programs.score(block.x, latents, **block.given)
        log_prior: Any = sum(scores.log_prior[name] for name in sites)
        priors = scores.priors if labels else {}
        for name in labels:
            of_model, of_guide = priors[name], block.distributions[name]
            if not self._classes:
                self._classes[name] = _values(name, of_guide)
            # A given class is certain, and what it weighs is no part of p(z).
            weights = torch.stack([of_model.log_prob(value) for value in self._classes[name]]).logsumexp(0)
            at = {site: latents[site] for site in sites}
            log_prior = self._programs.marginal_prior(block.x, at, self._classes, **block.given) - weights
            self._closed = self._closed and bool((of_guide.log_prob(block.latents[name]) == 0).all())
        self._put("log_prior", as_float64(log_prior))
        z, known = [], []
        for name in sites:
            value = latents[name]
            self._events[name] = tuple(value.shape[2:])
            z.append(as_float64(value).reshape(_PAIR_DRAWS, len(block), -1))
            known.append(gaussian_of(block.distributions[name], value))
        self._put("z", np.concatenate(z, axis=-1))
        self._add_gaussians([gaussian for gaussian in known if gaussian is not None], len(sites), block)

    def _sites(self, kinds: dict[str, SiteKind]) -> tuple[list[str], list[str]]:
        """Names of the codes, in the order of `Evaluation.activity`, and of the classes."""
        self._kinds = kinds
        sites = [name for name, kind in kinds.items() if kind == "code"]
        labels = [name for name, kind in kinds.items() if kind == "class"]
        if not sites or len(labels) > 1:
            raise ValueError(
                f"an aggregate posterior is one of continuous latents, with at most one site of discrete ones summed "
                f"out; the guide draws {', '.join(f'{name} ({kind})' for name, kind in kinds.items()) or 'nothing'}"
            )
        return sites, labels

    def _add_gaussians(self, found: list[SiteGaussian], num_sites: int, block: Block) -> None:
        self._closed = self._closed and len(found) == num_sites
        if not self._closed:
            return
        for part in ("loc", "scale"):
            values = [as_float64(getattr(gaussian, part)).reshape(len(block), -1) for gaussian in found]
            self._put(part, np.concatenate(values, axis=1)[None])
        tril = found[0].scale_tril
        self._full = any(gaussian.scale_tril is not None for gaussian in found)
        if tril is not None and num_sites == 1:
            rows = block.rows
            here = self._kept[(self._kept >= rows.start) & (self._kept < rows.stop)] - rows.start
            self._put("tril", as_float64(tril[torch.from_numpy(here).to(tril.device)])[None])

    def _put(self, name: str, values: Array) -> None:
        self._parts.setdefault(name, []).append(values)

    def result(self) -> AggregateDraws:
        """The draws, once every block was added."""
        joined = {name: np.concatenate(values, axis=1) for name, values in self._parts.items()}
        closed = self._closed
        return AggregateDraws(
            z=joined["z"],
            log_prior=joined["log_prior"],
            sizes={name: int(np.prod(event, dtype=int)) for name, event in self._events.items()},
            events=self._events,
            loc=joined["loc"][0] if closed else None,
            scale=joined["scale"][0] if closed else None,
            diagonal=closed and not self._full,
            scale_tril=joined["tril"][0] if closed and "tril" in joined else None,
            kept=self._kept,
            classes=self._classes,
            bare=len(self._events) == len(self._kinds),
        )


def draw_prior(data: PairData, sizes: dict[str, int], size: int) -> tuple[Array, list[MixtureMarginals] | None]:
    """Draws of the prior, from torch's generator as it stands, and its marginals where they are in closed form.

    Args:
        data: the pair, whose model draws, and its data, whose classes the draws are given one after the other.
        sizes: latents of each site.
        size: number of draws.

    Returns:
        Draws, shape ``(row, latent)``, and the marginals of each site; ``None`` where one is not a mixture of Gaussians
        or depends on another site's draw.
    """
    parts: list[Array] = []
    families: list[MixtureMarginals | None] = []
    y = data.split.y
    for rows in pieces(size, max(ELEMENTS_AT_ONCE // data.width, 2)):
        start, count = rows.start, rows.stop - rows.start
        some = None if y is None else y[torch.arange(start, start + count, device=y.device) % len(y)]
        drawn = simulate(data.programs, count, y=some)
        parts.append(np.concatenate([as_float64(drawn.latents[name]).reshape(count, -1) for name in sizes], axis=1))
        if start == 0:
            families = [marginals_of(drawn.priors[name], drawn.latents[name]) for name in sizes]
    known = [family for family in families if family is not None]
    return np.concatenate(parts), known if len(known) == len(families) else None


def aggregate_densities(
    drawn: AggregateDraws, data: PairData, rows: Array, prior: Array
) -> tuple[Densities, Densities | None, Array]:
    """Densities of the aggregate posterior of some data.

    Args:
        drawn: of `AggregateReducer`.
        data: the pair and its data; the guide is run for all pairs where its density is not in closed form.
        rows: the data that are compared, among ``drawn.kept`` where factors are used.
        prior: draws of the prior, shape ``(row, latent)``.

    Returns:
        Joint densities ``(particle, datum)`` and marginal ones ``(particle, datum, latent)`` (or ``None``) at the
        data's own draws, and the joint log density at the prior's draws, ``(row,)``.
    """
    programs, split = data.programs, data.split
    z = drawn.z[:, rows]
    particles, n, latents = z.shape
    marginal: Densities | None = None
    if drawn.loc is not None and drawn.scale is not None:
        loc, scale = drawn.loc[rows], drawn.scale[rows]
        joint, marginal = gaussian_densities(z, loc, scale)
        if drawn.diagonal:
            return joint, marginal, gaussian_mixture_log_density(prior, loc, scale)[0]
    everything = np.concatenate([z.reshape(-1, latents), prior])
    if drawn.loc is not None and drawn.scale_tril is not None:
        loc, tril = drawn.loc[rows], drawn.scale_tril[np.searchsorted(drawn.kept, rows)]

        def log_q(some: slice) -> Array:
            return full_rank_log_density(everything, loc[some], tril[some])
    else:
        chosen = replace(data, split=split.take(torch.from_numpy(rows).to(split.device)))
        ends = np.cumsum(list(drawn.sizes.values()))[:-1]
        columns = dict(zip(drawn.sizes, np.split(everything, ends, axis=1), strict=True))
        at = {
            name: torch.from_numpy(values).to(split.device, data.dtype).reshape(-1, 1, *drawn.events[name])
            for name, values in columns.items()
        }

        def log_q(some: slice) -> Array:
            x, given = chosen.batch(some)
            expanded = {name: value.expand(-1, len(x), *value.shape[2:]) for name, value in at.items()}
            if not drawn.bare:
                return as_float64(programs.marginal_guide(x, expanded, drawn.classes, **given))
            return as_float64(programs.score_guide(x, expanded, **given))

    block = max(_PAIR_NUMBERS // everything.size, 1)
    with isolated(0):  # sites that are not scored are drawn, and no estimate uses them
        joint, at_prior = pair_densities(log_q, particles, n, block=block, extra=len(prior))
    return joint, marginal, at_prior


def _values(name: str, distribution: TorchDistribution) -> Tensor:
    """What a discrete site can be, ``(value, *event)``."""
    try:
        values: Tensor = distribution.enumerate_support(expand=False)
    except NotImplementedError:
        values = torch.empty(1, 0)
    if values.numel() != len(values) * distribution.event_shape.numel():
        raise ValueError(
            f"the discrete site {name!r} is to be summed out of the density of the others, and its values cannot "
            f"be listed ({type(distribution).__name__}, event shape {tuple(distribution.event_shape)})"
        )
    return values.reshape(len(values), *distribution.event_shape)
