"""Information in the latents of a fitted pair, and its aggregate posterior.

The aggregate posterior ``q(z) = E_x[q(z | x)]`` against the prior, and the average KL decomposed (ELBO surgery).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.latent.information.aggregate import AggregateDraws, AggregateReducer, aggregate_densities, draw_prior
from analysis.latent.information.result import LatentSummary
from analysis.latent.information.thresholds import HOLE_LEVEL
from analysis.stats.information import (
    best_floor,
    collapsed,
    dimension_kl,
    hole_share,
    marginal_kl,
    mutual_information,
    total_correlation,
)
from analysis.stats.mixtures import fitted_log_density, gaussian_mixture_kl, gaussian_mixture_log_density
from analysis.stats.mmd import mmd
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import Block, PairData, bind, reduced
from vae_pyro.evaluation.evaluation import Evaluation, EvaluationReducer

type Array = np.ndarray[Any, Any]

# Data whose densities are compared with each other, where q(z | x) is Gaussian and where the guide has to be run.
_NUM_DATA, _NUM_DATA_REPLAYED = 4000, 300


@torch.no_grad()
def describe_latent(
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
) -> LatentSummary:
    """Active and collapsed latents, rate and distortion, and the aggregate posterior against the prior.

    Estimates of the aggregate posterior compare the densities of all pairs of ``num_data`` data; they are brackets with
    errors, see `analysis.stats.information`. The upper side of the mutual information (and the lower side of the
    marginal KL) takes the best of: the other data's posteriors, the product of their marginals, the prior, and a
    Gaussian mixture fitted to draws of other data.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`;
            ``model(size=n)`` draws from the prior.
        x: ``(datum, *x_shape)``, at least 20 data. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, for rate, distortion and activity.
        seed: of the draws and of the choice of data.
        num_data: how many data are compared, drawn at random; ``None`` takes at most 4,000, or at most 300 where
            q(z | x) is not Gaussian and the guide is run for all pairs.
        mask: boolean, shape of ``x``, true where observed.
        y: classes that the programs are given, ``(datum,)``.
        epsilon: nats, see `analysis.stats.information.collapsed`.
        delta: share of data, likewise.

    Returns:
        The summary.

    Raises:
        ValueError: fewer than 20 data, or what `vae_pyro.evaluate` raises.
    """
    data = bind(pair, x, mask=mask, y=y, seed=seed, check=False)
    reducer = LatentReducer(data, num_draws, num_data=num_data, seed=seed, epsilon=epsilon, delta=delta)
    data.pair.check_data(data.split)
    return reduced(reducer, data.walk(num_draws, seed=seed))


class LatentReducer:
    """Collects what `describe_latent` summarizes from the blocks of a walk; the arguments are those of the function.

    Raises:
        ValueError: fewer than 20 data, or fewer than 2 draws.
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
        if len(data) < 20 or (num_data is not None and num_data < 20):
            raise ValueError(f"at least 20 data are required to compare, got {len(data)} with num_data={num_data}")
        if num_draws < 2:
            raise ValueError(f"num_draws must be at least 2, got {num_draws}")
        self._data, self._options = data, {"num_data": num_data, "seed": seed, "epsilon": epsilon, "delta": delta}
        self._order = np.random.default_rng(derive_seed(seed, 2)).permutation(len(data))
        self._evaluation = EvaluationReducer(data, num_draws)
        self._aggregate = AggregateReducer(data, self._order[: num_data or _NUM_DATA])

    def add(self, block: Block) -> None:
        """Add the data of a block."""
        self._evaluation.add(block)
        self._aggregate.add(block)

    def result(self) -> LatentSummary:
        """The summary, once every block was added."""
        evaluation, drawn = self._evaluation.result(), self._aggregate.result()
        return _summarized(self._data, evaluation, drawn, self._order, **self._options)  # type: ignore[arg-type]


@torch.no_grad()
def _summarized(
    data: PairData,
    evaluation: Evaluation,
    drawn: AggregateDraws,
    order: Array,
    *,
    num_data: int | None = None,
    seed: int = 0,
    epsilon: float = 0.01,
    delta: float = 0.01,
) -> LatentSummary:
    """The first data of ``order`` are compared with each other; the others fit a mixture."""
    split = data.split
    size = num_data or (_NUM_DATA if drawn.closed else _NUM_DATA_REPLAYED)
    rows, others = order[:size], order[size:]
    with isolated(derive_seed(seed, 4)):
        prior, families = draw_prior(data, drawn.sizes, len(rows))

    z, log_prior = drawn.z[:, rows], drawn.log_prior[:, rows]
    joint, marginal, log_density_prior = aggregate_densities(drawn, data, rows, prior)
    floors = [joint.outside, log_prior, fitted_log_density(z, drawn.z[0, others], seed=derive_seed(seed, 5))]
    if marginal is not None:
        floors.append(marginal.outside.sum(-1))
    floor = best_floor(floors)

    kl = dimensions = latent_information = None
    if marginal is not None and families is not None and drawn.loc is not None and drawn.scale is not None:
        columns = np.split(np.arange(z.shape[-1]), np.cumsum(list(drawn.sizes.values()))[:-1])
        pairs = list(zip(columns, families, strict=True))
        loc, scale = drawn.loc, drawn.scale
        parts = [gaussian_mixture_kl(loc[:, d], scale[:, d], f.log_weight, f.loc, f.scale) for d, f in pairs]
        kl = np.concatenate(parts, axis=1)
        if all(family.independent for family in families):
            flat = z.reshape(-1, z.shape[-1])
            parts = [gaussian_mixture_log_density(flat[:, d], f.loc, f.scale)[1] for d, f in pairs]
            dimensions = dimension_kl(marginal, np.concatenate(parts, axis=1).reshape(z.shape))
    if marginal is not None:
        bounds = (marginal.own - marginal.inside, marginal.own - marginal.outside)
        latent_information = np.stack([bound.mean((0, 1)) for bound in bounds])
    holes, holes_se = hole_share(joint.outside, log_density_prior, level=HOLE_LEVEL)
    return LatentSummary(
        evaluation=evaluation,
        names=tuple(f"{name}[{i}]" for name, size in drawn.sizes.items() for i in range(size)),
        kl=kl,
        collapsed=np.zeros(z.shape[-1], dtype=bool) if kl is None else collapsed(kl, epsilon=epsilon, delta=delta),
        mutual_information=mutual_information(joint, floor),
        latent_information=latent_information,
        marginal_kl=marginal_kl(joint, log_prior, floor),
        total_correlation=None if marginal is None else total_correlation(joint, marginal, floor),
        dimension_kl=dimensions,
        mmd=mmd(z[0], prior, seed=derive_seed(seed, 6)),
        holes=holes,
        holes_se=holes_se,
        log_density=joint.outside,
        log_density_prior=log_density_prior,
        aggregate=z[0],
        aggregate_ids=split.ids.cpu().numpy()[rows],
        prior=prior,
        epsilon=epsilon,
        delta=delta,
    )
