"""The part of the KL that each layer of latents carries, its active units, and whether it has collapsed.

For layers z_1 (which the decoder reads) to z_L, ``KL = sum_l E_q[log q(z_l | .) - log p(z_l | z_(l+1))]``. Where the
guide goes down, each term is a KL, averaged over the layers above; where it goes up, the topmost layer's alone is.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from analysis.draws.arrays import as_array
from analysis.latent.information.layer_result import Layer, LayersSummary
from analysis.stats.information import Bracket, best_floor, collapsed, mutual_information
from analysis.stats.mixtures import fitted_log_density, gaussian_densities
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.log_density import LogDensities
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, Block, PairData, bind, pieces, reduced, take
from vae_pyro.evaluation.evaluation import activity_of
from vae_pyro.objectives.divergences import conditional_sites

type Array = np.ndarray[Any, Any]

# Data whose densities are compared with each other for the mutual information.
_NUM_DATA = 2000


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
    data = bind(pair, x, mask=mask, y=y, seed=seed)
    reducer = LayersReducer(data, num_draws, num_data=num_data, seed=seed, epsilon=epsilon, delta=delta)
    return reduced(reducer, data.walk(num_draws, seed=seed))


class LayersReducer:
    """Collects what `describe_layers` summarizes from the blocks of a walk; the arguments are those of the function.

    Of blocks with more draws it takes the first ``num_draws``.

    Raises:
        ValueError: fewer than 2 draws or data.
    """

    def __init__(
        self,
        data: PairData,
        num_draws: int,
        *,
        num_data: int | None = None,
        seed: int = 0,
        epsilon: float = 0.01,
        delta: float = 0.01,
    ) -> None:
        if num_draws < 2:
            raise ValueError(f"num_draws must be at least 2 for a standard error, got {num_draws}")
        if len(data) < 2:
            raise ValueError(f"at least 2 data are required, got {len(data)}")
        self._data, self._num_draws, self._seed = data, num_draws, seed
        self._compared, self._epsilon, self._delta = num_data or _NUM_DATA, epsilon, delta
        self._names: tuple[str, ...] = ()
        self._totals: list[Array] = []
        self._beside: list[Array] = []
        self._layers: dict[str, _Parts] = {}

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add the data of a block.

        Raises:
            ValueError: no site is a layer.
        """
        self._names = tuple(name for name, kind in block.kinds.items() if kind == "code")
        if not self._names:
            raise ValueError(f"no layer: the guide draws {', '.join(block.kinds)}, and none of it is continuous")
        at_once = max(ELEMENTS_AT_ONCE // (self._num_draws * self._data.width), 1)
        with isolated():
            for rows in pieces(len(block), at_once):
                self._add(self._densities(block, rows))

    def _densities(self, block: Block, rows: slice) -> LogDensities:
        """Distributions of both programs at the draws of some data; `Block.distributions` cannot be cut."""
        x, given = block.x[rows], {name: value[rows] for name, value in block.given.items()}
        latents = take(block.latents, slice(self._num_draws), rows)
        densities = self._data.programs.log_densities(x, self._num_draws, latents=latents, **given)
        log_prior, log_guide = (torch.stack(terms).sum(0) for terms in zip(*densities.sites.values(), strict=True))
        return replace(densities, log_prior=log_prior, log_guide=log_guide)

    def _add(self, densities: LogDensities) -> None:
        self._totals.append(_moments(densities.log_guide - densities.log_prior))
        beside = [log_q - log_p for name, (log_p, log_q) in densities.sites.items() if name not in self._names]
        if beside:
            self._beside.append(as_array(torch.stack(beside).double().sum(0).mean(0)))
        conditional, first = conditional_sites(densities), next(iter(densities.latents))
        for name in densities.distributions:
            if name in self._names:
                parts = self._layers.setdefault(name, _Parts(name in conditional))
                parts.add(densities, name, first=name == first)

    def result(self) -> LayersSummary:
        """The summary, once every block was added."""
        rows = np.random.default_rng(derive_seed(self._seed, 2)).permutation(len(self._data))
        layers = tuple(self._layer(name, parts, rows) for name, parts in reversed(self._layers.items()))
        kl, kl_mcse = np.concatenate(self._totals).T
        beside = np.concatenate(self._beside) if self._beside else None
        return LayersSummary(layers, kl, kl_mcse, self._names, self._num_draws, self._epsilon, self._delta, beside)

    def _layer(self, name: str, parts: "_Parts", rows: Array) -> Layer:
        found, closed = parts.joined(), parts.closed
        kl_draws, kl_draws_mcse = found["draws_kl"].T
        kl, kl_mcse = found["closed_kl" if closed else "draws_kl"].T
        activity, activity_se = activity_of(found["mean"], found["variance"], self._num_draws)
        each = found.get("dimension_kl")
        collapse = np.zeros(len(activity), dtype=bool)
        if closed and each is not None:
            collapse = collapsed(each, epsilon=self._epsilon, delta=self._delta)
        return Layer(
            name=name,
            kl=kl,
            kl_mcse=kl_mcse,
            kl_draws=kl_draws,
            kl_draws_mcse=kl_draws_mcse,
            conditional=parts.conditional,
            closed=closed,
            dimension_kl=each,
            activity=activity,
            activity_se=activity_se,
            collapsed=collapse,
            information=_information(found, rows, self._compared, derive_seed(self._seed, 3)),
        )


class _Parts:
    """What blocks of data add to one layer: arrays whose first dimension is the datum.

    Args:
        conditional: see `Layer`; likewise ``closed``.
    """

    def __init__(self, conditional: bool) -> None:
        self.conditional, self.closed = conditional, False
        self._found: dict[str, list[Array]] = {}

    def add(self, densities: LogDensities, name: str, *, first: bool) -> None:
        """Add some data; ``first`` is the layer that the guide draws first."""
        prior, guide = densities.distributions[name]
        log_p, log_q = densities.sites[name]
        draws = densities.latents[name]
        flat = draws.reshape(*draws.shape[:2], -1).double()
        self._put("draws_kl", _moments(log_q - log_p))
        try:
            kl = kl_divergence(guide, prior).expand(log_q.shape) if self.conditional else None
        except NotImplementedError:
            kl = None
        self.closed = kl is not None
        if kl is not None:
            self._put("closed_kl", _moments(kl))
        if isinstance(prior, Independent) and isinstance(guide, Independent):
            each = _each(prior, guide, draws, closed=self.closed)
            if each is not None:
                self._put("dimension_kl", as_array(each.reshape(*draws.shape[:2], -1).mean(0)))
        self._put("mean", as_array(flat.mean(0)))
        self._put("variance", as_array(flat.var(0)))
        known = _gaussian(guide) if first else None
        if known is not None:
            self._put("draws", as_array(flat[:2].transpose(0, 1)))
            for part, values in zip(("loc", "scale"), known, strict=True):
                self._put(part, as_array(values.expand(draws.shape)[0].reshape(flat.shape[1:])))

    def _put(self, part: str, values: Array) -> None:
        self._found.setdefault(part, []).append(values)

    def joined(self) -> dict[str, Array]:
        """Each part of all data."""
        return {part: np.concatenate(values) for part, values in self._found.items()}


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


def _moments(values: Tensor) -> Array:
    """Mean over particles and its Monte Carlo standard error, ``(datum, 2)``."""
    values = values.double()
    return as_array(torch.stack([values.mean(0), values.std(0) / len(values) ** 0.5], 1))


def _information(found: dict[str, Array], rows: Array, limit: int, seed: int) -> Bracket | None:
    if "loc" not in found or len(rows) < 20:
        return None
    compared, others, draws = rows[:limit], rows[limit:], found["draws"].swapaxes(0, 1)
    z, loc, scale = draws[:, compared], found["loc"][compared], found["scale"][compared]
    joint, marginal = gaussian_densities(z, loc, scale)
    floors = [joint.outside, marginal.outside.sum(-1), fitted_log_density(z, draws[0, others], seed=seed)]
    return mutual_information(joint, best_floor(floors))
