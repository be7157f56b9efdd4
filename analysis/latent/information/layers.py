"""The part of the KL that each layer of latents carries, its active units, and whether it has collapsed.

For layers z_1 (which the decoder reads) to z_L, ``KL = sum_l E_q[log q(z_l | .) - log p(z_l | z_(l+1))]``. Where the
guide goes down, each term is a KL, averaged over the layers above; where it goes up, the topmost layer's alone is.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from analysis.latent.information.layer_result import Layer, LayersSummary
from analysis.stats.information import Bracket, best_floor, collapsed, mutual_information
from analysis.stats.mixtures import fitted_log_density, gaussian_densities
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.log_density import LogDensities, log_densities
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.sites import draw_sites
from vae_pyro.densities.walk import bind
from vae_pyro.evaluation.evaluation import activity_of
from vae_pyro.objectives.divergences import conditional_sites

type Array = np.ndarray[Any, Any]

# Data whose densities are compared with each other for the mutual information.
_NUM_DATA = 2000


@torch.no_grad()
def describe_layers(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_draws: int = 30,
    seed: int = 0,
    num_data: int | None = None,
    mask: Tensor | None = None,
    y: Any = None,
    epsilon: float = 0.01,
    delta: float = 0.01,
) -> LayersSummary:
    """The KL, active units and collapse of each layer of latents.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`; its
            codes, see `vae_pyro.densities.sites.draw_sites`, are the layers, and the one that the model draws
            last the lowest.
        x: ``(datum, *x_shape)``, at least 2 data. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, at least 2.
        seed: of the draws.
        num_data: how many data are compared for the mutual information, drawn at random; ``None`` takes at most 2,000.
        mask: boolean, shape of ``x``, true where observed.
        y: classes ``(datum,)`` that the programs are given.
        epsilon: nats, see `analysis.stats.information.collapsed`.
        delta: share of data, likewise.

    Returns:
        The summary.

    Raises:
        ValueError: fewer than 2 draws or data, no layer at all, or a site whose log density the densities cannot have.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2 for a standard error, got {num_draws}")
    data = bind(pair, x, mask=mask, y=y, seed=seed)
    split, model, guide = data.split, data.pair.model, data.pair.guide
    if len(split) < 2:
        raise ValueError(f"at least 2 data are required, got {len(split)}")
    parts: dict[str, dict[str, list[Array]]] = {}
    totals: list[Array] = []
    others: list[Array] = []
    kinds: dict[str, tuple[bool, bool]] = {}
    with isolated(derive_seed(seed, 1)):
        head, given = data.batch(slice(0, 1))
        sites = draw_sites(guide, head, num_particles=1, **given).kinds
        order = tuple(sites)
        names = tuple(name for name in order if sites[name] == "code")
        if not names:
            raise ValueError(f"no layer: the guide draws {', '.join(order) or 'nothing'}, and none of it is continuous")
        for piece in data.rows(num_draws):
            block, given = data.batch(piece)
            densities = log_densities(model, guide, block, num_particles=num_draws, **given)
            conditional = conditional_sites(_in_order(densities, order))
            totals.append(_array(_moments(densities.log_guide - densities.log_prior)))
            beside = [log_q - log_p for name, (log_p, log_q) in densities.sites.items() if name not in names]
            if beside:
                others.append(_array(torch.stack(beside).double().sum(0).mean(0)))
            for name, found, closed in _block(densities, conditional, names, first=order[0]):
                kinds[name] = name in conditional, closed
                for key, values in found.items():
                    parts.setdefault(name, {}).setdefault(key, []).append(values)
    joined = {
        name: {key: np.concatenate(values, axis=-2 if key in _WIDE else -1) for key, values in found.items()}
        for name, found in parts.items()
    }
    rows = np.random.default_rng(derive_seed(seed, 2)).permutation(len(split))
    limit = num_data or _NUM_DATA
    layers = tuple(
        _layer(name, joined[name], kinds[name], num_draws, rows, limit, epsilon, delta, derive_seed(seed, 3))
        for name in reversed(list(joined))
    )
    kl, kl_mcse = np.concatenate(totals, axis=1)
    aside = np.concatenate(others) if others else None
    return LayersSummary(layers, kl, kl_mcse, names, num_draws, epsilon, delta, aside)


# Parts whose last dimension is the latent one, behind the data.
_WIDE = ("dimension_kl", "mean", "variance", "draws", "loc", "scale")


def _in_order(densities: LogDensities, order: tuple[str, ...]) -> LogDensities:
    """The densities with its draws in the order of the guide."""
    latents = {name: densities.latents[name] for name in order}
    return LogDensities(
        densities.log_likelihood,
        densities.log_prior,
        densities.log_guide,
        latents,
        distributions=densities.distributions,
    )


def _block(
    densities: LogDensities, conditional: set[str], names: tuple[str, ...], first: str
) -> Iterator[tuple[str, dict[str, Array], bool]]:
    """What one block of data adds to each layer, in the order of the model, and whether its KL is closed."""
    for name, (prior, guide) in densities.distributions.items():
        if name not in names:
            continue
        draws = densities.latents[name]
        log_p, log_q = densities.sites[name]
        flat = draws.reshape(*draws.shape[:2], -1)
        found = {"draws_kl": _array(_moments(log_q - log_p))}
        products = isinstance(prior, Independent) and isinstance(guide, Independent)
        kl: Tensor | None = None
        if name in conditional:
            try:
                kl = kl_divergence(guide, prior).expand(log_q.shape)
                found["closed_kl"] = _array(_moments(kl))
            except NotImplementedError:
                kl = None
        if products:
            each = _each(prior, guide, draws, closed=kl is not None)
            if each is not None:
                found["dimension_kl"] = _array(each.reshape(*draws.shape[:2], -1).mean(0))
        found["mean"], found["variance"] = _array(flat.double().mean(0)), _array(flat.double().var(0))
        if name == first:
            found["draws"] = _array(flat[:2])
            known = _gaussian(guide)
            if known is not None:
                shape = draws.shape[1:]
                found["loc"], found["scale"] = (_array(part.expand(draws.shape)[0].reshape(shape)) for part in known)
        yield name, found, kl is not None


def _each(prior: Independent, guide: Independent, draws: Tensor, *, closed: bool) -> Tensor | None:
    """The terms of each dimension, ``(particle, datum, *event)``."""
    of_prior, of_guide = prior.base_dist, guide.base_dist
    if of_prior.event_shape or of_guide.event_shape:
        return None
    if not closed:
        return (of_guide.log_prob(draws) - of_prior.log_prob(draws)).expand(draws.shape)
    return kl_divergence(of_guide, of_prior).expand(draws.shape)


def _gaussian(guide: TorchDistribution) -> tuple[Tensor, Tensor] | None:
    """Location and scale of a diagonal Gaussian."""
    base = guide.base_dist if isinstance(guide, Independent) else None
    return (base.loc, base.scale) if isinstance(base, Normal) else None


def _moments(values: Tensor) -> Tensor:
    """Mean over particles and its Monte Carlo standard error, ``(2, datum)``."""
    values = values.double()
    return torch.stack([values.mean(0), values.std(0) / len(values) ** 0.5])


def _layer(
    name: str,
    found: dict[str, Array],
    kind: tuple[bool, bool],
    num_draws: int,
    rows: Array,
    limit: int,
    epsilon: float,
    delta: float,
    seed: int,
) -> Layer:
    conditional, closed = kind
    kl_draws, kl_draws_mcse = found["draws_kl"]
    kl, kl_mcse = found["closed_kl"] if closed else found["draws_kl"]
    activity, activity_se = activity_of(found["mean"], found["variance"], num_draws)
    each = found.get("dimension_kl")
    off = np.zeros(len(activity), dtype=bool)
    return Layer(
        name=name,
        kl=kl,
        kl_mcse=kl_mcse,
        kl_draws=kl_draws,
        kl_draws_mcse=kl_draws_mcse,
        conditional=conditional,
        closed=closed,
        dimension_kl=each,
        activity=activity,
        activity_se=activity_se,
        collapsed=collapsed(each, epsilon=epsilon, delta=delta) if closed and each is not None else off,
        information=_information(found, rows, limit, seed),
    )


def _information(found: dict[str, Array], rows: Array, limit: int, seed: int) -> Bracket | None:
    if "loc" not in found or len(rows) < 20:
        return None
    compared, others = rows[:limit], rows[limit:]
    z, loc, scale = found["draws"][:, compared], found["loc"][compared], found["scale"][compared]
    joint, marginal = gaussian_densities(z, loc, scale)
    floors = [joint.outside, marginal.outside.sum(-1), fitted_log_density(z, found["draws"][0, others], seed=seed)]
    return mutual_information(joint, best_floor(floors))


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())
