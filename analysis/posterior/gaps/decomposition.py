"""Split log p(x) - ELBO into approximation gap and amortization gap, datum by datum."""

from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.posterior.annealing import AnnealingConfig, anneal, join, joints, sandwich
from analysis.posterior.bounds import Annealing
from analysis.posterior.gaps.result import InferenceGaps
from analysis.posterior.hamiltonian import Start
from analysis.posterior.joint import Gaussian, LogJoint, guide_gaussian
from analysis.posterior.local_guides import Family, LocalConfig, LocalGuide, optimize_locally
from analysis.posterior.nuts import nuts_moments
from analysis.posterior.starts import best_of
from analysis.stats.importance import log_evidence
from analysis.stats.pareto_smoothing import pareto_k
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike, as_pair

type Array = np.ndarray[Any, Any]

_DRAWS_AT_ONCE = 10
# Beside the optimised guide, which can lie in one of several modes.
_OTHER_STARTS: tuple[Start, ...] = ("guide", "prior")


def inference_gaps(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_data: int = 100,
    num_draws: int = 5000,
    family: Family | None = None,
    local: LocalConfig | None = None,
    annealing: AnnealingConfig | None = None,
    num_simulated: int = 25,
    num_nuts: int = 0,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> InferenceGaps:
    """Split log p(x) - ELBO into what the family of the guide loses and what amortizing it loses.

    The amortization gap is ELBO(q*) - ELBO(q), the approximation gap log p(x) - ELBO(q*), with q the guide and q* the
    best of a family for each datum, found by gradient ascent from q. log p(x) comes from annealing that starts at q*;
    where annealing from the guide or the prior, or importance sampling, bounds it higher by more than four standard
    errors, as for a posterior of several modes of which q* holds one, that bound is taken for the datum.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`,
            with real-valued latents.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_data: how many of the data to look at, a random subset; all where there are fewer.
        num_draws: for ELBOs and importance sampling, for each datum; at least 25.
        family: of q*; ``None`` takes that of the guide: ``full_rank`` where it is a correlated Gaussian, ``mean_field``
            where it is a diagonal one. A guide that is no Gaussian is compared with a mean-field q*, and may be better.
        local: how q* is found.
        annealing: number of chains, length of the path.
        num_simulated: data to simulate for bounds on the error of annealing; 0 leaves them out.
        num_nuts: data whose posterior moments Pyro's NUTS computes beside the guide's; 0 leaves them out.
        seed: of all draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.

    Returns:
        Both gaps of each datum with errors, and the evidence that they can be trusted.

    Raises:
        ValueError: latents that are not real-valued, data outside the support of the likelihood, too few data or draws.

    References:
        Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders, Table 1.
        arXiv:1801.03558
    """
    if num_data < 1 or num_simulated < 0 or num_nuts < 0:
        raise ValueError(
            f"num_data of at least 1 and num_simulated and num_nuts of at least 0 are required, got {num_data}, "
            f"{num_simulated}, {num_nuts}"
        )
    if num_draws < 25:
        raise ValueError(f"num_draws must be at least 25 for k-hat, got {num_draws}")
    local, annealing = local or LocalConfig(), annealing or AnnealingConfig()
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    if num_data < len(split):
        rows = np.random.default_rng(derive_seed(seed, 1)).choice(len(split), num_data, replace=False)
        split = split.take(torch.as_tensor(np.sort(rows)))
    held = max(annealing.num_chains, local.num_particles, _DRAWS_AT_ONCE)

    parts: dict[str, list[Array]] = {}
    chains: list[tuple[Annealing, ...]] = []
    for number, joint in enumerate(joints(pair, split, held)):
        with isolated(derive_seed(seed, 2, number)):
            guide, exact, chosen, best = _optimised(joint, family, local)
            of_guide, of_best = _log_weights(joint, guide if exact else None, best.gaussian, num_draws)
            chains.append(tuple(anneal(joint, start, annealing) for start in (best.gaussian, *_OTHER_STARTS)))
        block = _estimates(of_guide, of_best, paired=exact)
        for name in ("remaining", "remaining_se", "improved"):
            block[name] = getattr(best, name).cpu().numpy()
        for name, values in block.items():
            parts.setdefault(name, []).append(values)
        same_family = exact and (chosen == "full_rank" or guide.diagonal)
        latent_dim = joint.dim
    joined: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    bounds = None
    if num_simulated:
        # Simulated data are masked, and have the classes, of the first of these, of which there may be fewer.
        plain = split.mask is None and split.y is None
        num_simulated = num_simulated if plain else min(num_simulated, len(split))
        mask = None if split.mask is None else split.mask[:num_simulated]
        y = None if split.y is None else split.y[:num_simulated].to(as_pair(pair).place(split)[0])

        def starts(joint: LogJoint) -> tuple[Start | Gaussian, ...]:
            return _optimised(joint, family, local)[-1].gaussian, *_OTHER_STARTS

        bounds = sandwich(pair, num_simulated, starts, annealing, like=split, mask=mask, y=y, seed=derive_seed(seed, 3))
    return InferenceGaps(
        ids=split.ids.cpu().numpy(),
        **joined,
        annealing=join([best_of(parts) for parts in chains]),
        starts=tuple(join(list(parts)) for parts in zip(*chains, strict=True)),
        family=chosen,
        same_family=same_family,
        latent_dim=latent_dim,
        num_draws=num_draws,
        sandwich=bounds,
        nuts=nuts_moments(pair, split.take(slice(0, num_nuts)), seed=derive_seed(seed, 4)) if num_nuts else None,
    )


def _optimised(
    joint: LogJoint, family: Family | None, config: LocalConfig
) -> tuple[Gaussian, bool, Family, LocalGuide]:
    """The guide as a Gaussian, whether it is one, and the best Gaussian of a family for each datum."""
    guide, exact = guide_gaussian(joint)
    # A guide of layers correlates them through its draws, and would beat the best Gaussian that cannot.
    correlated = not guide.diagonal or (not exact and len(joint.shapes) > 1)
    chosen: Family = family or ("full_rank" if correlated else "mean_field")
    start = guide
    if chosen == "mean_field" and not guide.diagonal:
        start = Gaussian(guide.loc, torch.diag_embed(guide.scale), True)
    return guide, exact, chosen, optimize_locally(joint, start, chosen, config)


@torch.no_grad()
def _log_weights(joint: LogJoint, guide: Gaussian | None, best: Gaussian, num_draws: int) -> tuple[Array, Array]:
    """Log weights ``(draw, datum)`` of the guide, ``None`` for one that is no Gaussian, and of ``best``."""
    weights: tuple[list[Tensor], list[Tensor]] = ([], [])
    for first in range(0, num_draws, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, num_draws - first)
        noise = torch.randn(count, *best.loc.shape).to(best.loc)
        for q, kept in zip((guide, best), weights, strict=True):
            if q is None:
                densities = joint.programs.log_densities(joint.x, count, **joint.given)
                kept.append(densities.log_joint - densities.log_guide)
            else:
                z = q.shift(noise)
                kept.append(joint.value(z) - q.log_prob(z))
    of_guide, of_best = (torch.cat(kept).double().cpu().numpy() for kept in weights)
    return of_guide, of_best


def _estimates(of_guide: Array, of_best: Array, *, paired: bool) -> dict[str, Array]:
    """ELBOs, log p(x), tail indices and their errors from log weights ``(draw, datum)``."""
    root = sqrt(len(of_guide))
    elbo_se, elbo_local_se = of_guide.std(0, ddof=1) / root, of_best.std(0, ddof=1) / root
    log_px_is, log_px_is_se = log_evidence(of_best)
    log_px_guide, log_px_guide_se = log_evidence(of_guide)
    return {
        "elbo": of_guide.mean(0),
        "elbo_se": elbo_se,
        "elbo_local": of_best.mean(0),
        "elbo_local_se": elbo_local_se,
        "amortization_se": (of_best - of_guide).std(0, ddof=1) / root if paired else np.hypot(elbo_se, elbo_local_se),
        "log_px_is": log_px_is,
        "log_px_is_se": log_px_is_se,
        "pareto_k_local": pareto_k(of_best),
        "log_px_guide": log_px_guide,
        "log_px_guide_se": log_px_guide_se,
        "pareto_k_guide": pareto_k(of_guide),
    }
