"""Do the latents carry information, and do draws of the prior land where the data's latents are?

The aggregate posterior ``q(z) = E_x[q(z | x)]`` against the prior, and the average KL taken apart (ELBO surgery).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.latent.aggregate import AggregateDraws, AggregateReducer, aggregate_densities, draw_prior
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.information import (
    Bracket,
    best_floor,
    collapsed,
    dimension_kl,
    hole_share,
    marginal_kl,
    mutual_information,
    total_correlation,
)
from analysis.stats.mixtures import fitted_log_density, gaussian_mixture_kl, gaussian_mixture_log_density
from analysis.stats.mmd import MMD, mmd
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import PairData, bind
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE, Evaluation, EvaluationReducer

type Array = np.ndarray[Any, Any]

# Data whose densities are compared with each other, where q(z | x) is Gaussian and where the guide has to be run.
_NUM_DATA, _NUM_DATA_REPLAYED = 4000, 300
# Conventions. VAEs of MNIST with 2 and 20 latents have an aggregate posterior at 3 to 13 % of the rate from the prior,
# and 3 to 8 % of prior draws in holes; the limits stand well above that.
_UNUSED_SHARE = 0.5
_KL_SHARE = 0.2
_HOLE_LEVEL, _HOLES_WARN, _HOLES_FAIL = 0.01, 0.25, 0.75


@dataclass(frozen=True)
class LatentSummary:
    """What the latents of a fitted pair carry, in nats per datum.

    Attributes:
        evaluation: rate (``kl``), distortion (``-reconstruction``) and activity, from all data.
        names: of the latents, ``z[0]`` and so on.
        kl: KL(q(z_d | x) || p(z_d)), shape ``(datum, latent)``; exact for a Gaussian prior, by quadrature for a
            mixture; ``None`` where guide or prior has no marginals in closed form.
        collapsed: (epsilon, delta)-collapse of each latent; all false where ``kl`` is ``None``.
        mutual_information: I(x; z).
        latent_information: I(x; z_d), lower and upper estimate, shape ``(2, latent)``, or ``None``.
        marginal_kl: KL(q(z) || p(z)).
        total_correlation: KL(q(z) || prod q(z_d)), or ``None``.
        dimension_kl: sum_d KL(q(z_d) || p(z_d)), or ``None``.
        mmd: between draws of the aggregate posterior and of the prior.
        holes: share of prior draws where q(z) is below its own 1 % quantile.
        holes_se: its standard error.
        log_density: log q(z) at draws of the aggregate posterior, shape ``(particle, datum)``, from the other data.
        log_density_prior: log q(z) at draws of the prior, shape ``(row,)``.
        aggregate: draws of the aggregate posterior, one a datum, shape ``(datum, latent)``.
        aggregate_ids: their ids.
        prior: draws of the prior, shape ``(row, latent)``.
        epsilon: nats below which a latent counts as collapsed for a datum.
        delta: share of data that may be above it.
    """

    evaluation: Evaluation
    names: tuple[str, ...]
    kl: Array | None
    collapsed: Array
    mutual_information: Bracket
    latent_information: Array | None
    marginal_kl: Bracket
    total_correlation: Bracket | None
    dimension_kl: Bracket | None
    mmd: MMD
    holes: float
    holes_se: float
    log_density: Array = field(repr=False)
    log_density_prior: Array = field(repr=False)
    aggregate: Array = field(repr=False)
    aggregate_ids: Array = field(repr=False)
    prior: Array = field(repr=False)
    epsilon: float = 0.01
    delta: float = 0.01

    @property
    def num_compared(self) -> int:
        """Data whose densities were compared with each other."""
        return len(self.aggregate)

    @property
    def ceiling(self) -> float:
        """log N: what the lower estimate of the mutual information cannot exceed."""
        return float(np.log(self.num_compared))

    @property
    def active(self) -> Array:
        """Latents whose posterior mean varies over data with a variance above 0.01, shape ``(latent,)``."""
        return np.asarray(self.evaluation.activity > ACTIVE_VARIANCE)

    @property
    def unused(self) -> Array:
        """Latents that are collapsed or not active, shape ``(latent,)``."""
        return np.asarray(self.collapsed | ~self.active)

    @property
    def rate(self) -> float:
        """E KL(q(z | x) || p(z)), nats per datum.

        References:
            Alemi et al. 2018, Fixing a broken ELBO, sec. 3: distortion + rate = -ELBO. arXiv:1711.00464
        """
        return float(self.evaluation.kl.mean())

    @property
    def distortion(self) -> float:
        """-E log p(x | z), nats per datum."""
        return -float(self.evaluation.reconstruction.mean())

    @property
    def mean_kl(self) -> Array | None:
        """KL(q(z_d | x) || p(z_d)) averaged over data, shape ``(latent,)``."""
        return None if self.kl is None else np.asarray(self.kl.mean(0))

    def _error(self, name: str) -> float:
        """Standard error of an average over data, for another test set and other draws."""
        values = getattr(self.evaluation, name)
        return float(values.std(ddof=1) / np.sqrt(len(values)))

    @property
    def rate_se(self) -> float:
        """Standard error of `rate`, for another test set."""
        return self._error("kl")

    @property
    def distortion_se(self) -> float:
        """Standard error of `distortion`, for another test set."""
        return self._error("reconstruction")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Collapse, aggregate posterior against prior, and holes."""
        return self._collapse_verdict(), self._aggregate_verdict(), self._holes_verdict()

    def _collapse_verdict(self) -> Verdict:
        unused, total = int(self.unused.sum()), len(self.names)
        which = ", ".join(name for name, off in zip(self.names, self.unused, strict=True) if off)
        outcome: Outcome = "fail" if unused == total else "warn" if unused > _UNUSED_SHARE * total else "pass"
        advice = {
            "fail": "the posterior has collapsed: x is ignored; lower beta, warm the KL up, or lower the likelihood's "
            "variance",
            "warn": f"most latents are unused ({which}): lower latent_dim or beta, or warm the KL up",
            "pass": f"unused: {which}" if unused else "",
        }[outcome]
        # An active count that is wrong by one changes the share by 1 / total.
        error = round(self.evaluation.active_units_se / total, 6)
        return Verdict(
            "Do the latents depend on the data?",
            unused / total,
            error,
            "share of latents unused",
            f"at most {_UNUSED_SHARE:g}",
            "unused: (epsilon, delta)-collapse of Lucas et al. 2019 (arXiv:1911.02469), or inactive by Burda et al. "
            "2016, sec. 5 (arXiv:1509.00519); the share is a convention",
            outcome,
            advice,
            "posterior_collapse",
        )

    def _aggregate_verdict(self) -> Verdict:
        # Below a hundredth of a nat no share of a rate matters.
        bound, limit = self.marginal_kl, max(_KL_SHARE * self.rate, 0.01)
        far = bound.lower - 2 * bound.lower_se > limit
        advice = ""
        if far:
            advice = (
                "draws of the prior do not look like the data's latents: choose a learned prior ('mixture', 'vamp', "
                "'flow'), which would win at least these nats"
            )
        elif bound.upper - 2 * bound.upper_se > limit:
            advice = (
                f"a lower bound: at most {bound.upper:.3g}, for {self.num_compared:,} data tell at most log N = "
                f"{self.ceiling:.2g} nats of information apart"
            )
        return Verdict(
            "Is the aggregate posterior close to the prior?",
            bound.lower,
            bound.lower_se,
            "nats per datum, KL(q(z) || p(z)), at least",
            f"at most {limit:.3g}, {_KL_SHARE:.0%} of the rate",
            "Hoffman & Johnson 2016, ELBO surgery (the KL is what a better prior would win); the share is a convention",
            "warn" if far else "pass",
            advice,
            "aggregate_posterior",
        )

    def _holes_verdict(self) -> Verdict:
        surely = self.holes - 2 * self.holes_se
        outcome: Outcome = "fail" if surely > _HOLES_FAIL else "warn" if surely > _HOLES_WARN else "pass"
        return Verdict(
            "Do draws of the prior land where the data's latents are?",
            self.holes,
            self.holes_se,
            f"share of prior draws below the {_HOLE_LEVEL:.0%} quantile of q(z)",
            f"at most {_HOLES_WARN:g} ({_HOLE_LEVEL:g} if prior and aggregate posterior agree)",
            "Rosca et al. 2018 (arXiv:1802.06847), low-posterior samples; the share is a convention",
            outcome,
            ""
            if outcome == "pass"
            else "samples from there are not like data: choose a learned prior, or sample from the aggregate posterior",
            "prior_holes",
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, nats per datum."""
        figures: dict[str, Any] = {
            "rate": self.rate,
            "rate_se": self.rate_se,
            "distortion": self.distortion,
            "distortion_se": self.distortion_se,
            "active_units": int(self.active.sum()),
            "collapsed": int(self.collapsed.sum()),
            "unused": int(self.unused.sum()),
            "latents": len(self.names),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "holes": self.holes,
            "holes_se": self.holes_se,
            "num_data": len(self.evaluation),
            "num_draws": self.evaluation.num_draws,
            "num_compared": self.num_compared,
            "log_num_compared": self.ceiling,
            "mmd": self.mmd.summary(),
        }
        for name in ("mutual_information", "marginal_kl", "total_correlation", "dimension_kl"):
            value = getattr(self, name)
            figures[name] = None if value is None else value.summary()
        return figures

    def __str__(self) -> str:
        total = len(self.names)
        apart = f"I(x; z) {self.mutual_information}, KL(q(z) || p(z)) {self.marginal_kl}"
        if self.total_correlation is not None:
            apart += f", total correlation {self.total_correlation}"
        return (
            f"{total - int(self.unused.sum())} of {total} latents in use: {int(self.active.sum())} active, "
            f"{int(self.collapsed.sum())} collapsed\n"
            f"  rate {self.rate:.3f} ± {self.rate_se:.2g}, distortion {self.distortion:.3f} ± {self.distortion_se:.2g} "
            f"nats per datum ({len(self.evaluation):,} data)\n"
            f"  {apart}\n"
            f"  ({self.num_compared:,} data compared; information above log N = {self.ceiling:.2f} nats is not seen "
            "from below)\n"
            f"  {self.holes:.1%} ± {self.holes_se:.1%} of prior draws in holes of q(z), {_HOLE_LEVEL:.0%} if they "
            f"agree; MMD^2 {self.mmd.value:.2g}, p = {self.mmd.p_value:.3f}"
        )


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

    Figures of the aggregate posterior compare the densities of all pairs of ``num_data`` data; they are brackets with
    errors, see `analysis.stats.information`. The upper side of the mutual information (and the lower side of the
    marginal KL) takes the best of: the other data's posteriors, the product of their marginals, the prior, and a
    Gaussian mixture fitted to draws of other data.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`;
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
    split = data.split
    if len(split) < 20 or (num_data is not None and num_data < 20):
        raise ValueError(f"at least 20 data are required to compare, got {len(split)} with num_data={num_data}")
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2, got {num_draws}")
    data.pair.check_data(split)
    order = np.random.default_rng(derive_seed(seed, 2)).permutation(len(split))
    evaluation, aggregate = EvaluationReducer(data, num_draws), AggregateReducer(data, order[: num_data or _NUM_DATA])
    for block in data.walk(num_draws, seed=seed):
        evaluation.add(block)
        aggregate.add(block)
    return summarize_latent(
        data, evaluation.result(), aggregate.result(), order,
        num_data=num_data, seed=seed, epsilon=epsilon, delta=delta,
    )  # fmt: skip


@torch.no_grad()
def summarize_latent(
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
    """What `describe_latent` makes of the draws of a walk.

    Args:
        data: the pair and its data.
        evaluation: of all data.
        drawn: draws of all data, with the factors of those that are compared.
        order: of the data, whose first ones are compared and the others fit a mixture.
        num_data: see `describe_latent`.
        seed: of the prior's draws, the mixture and the permutations.
        epsilon: see `describe_latent`.
        delta: see `describe_latent`.
    """
    split = data.split
    wanted = num_data or (_NUM_DATA if drawn.closed else _NUM_DATA_REPLAYED)
    rows, others = order[:wanted], order[wanted:]
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
    holes, holes_se = hole_share(joint.outside, log_density_prior, level=_HOLE_LEVEL)
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
