"""Simulation-based calibration: draw latents and data from the model, and rank the truth among draws of the guide.

For an exact posterior the rank of the truth among independent draws is uniform, whatever the model. The test is of the
guide on data of the fitted model, not of the model on observed data.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.draws.arrays import as_array, side_by_side
from analysis.posterior.calibration.evidence import EvidenceBounds
from analysis.posterior.calibration.result import HIGHEST_DENSITY, TARP, Calibration
from analysis.stats.ranks import ranks, settled, standardize, tarp
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Given, Split
from vae_pyro.densities.pair import PairLike, as_pair
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.programs.simulation import simulate
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE

type Array = np.ndarray[Any, Any]
# (latents {site: (particle, datum, *event)}, x (datum, *event)) -> (particle, datum)
type Quantity = Callable[[dict[str, Tensor], Tensor], Tensor]

_NAMED = ("log_likelihood", "log_prior", "log_joint", "log_weight")
# Latent numbers (particles x data x latents) held at once.
_NUMBERS_AT_ONCE = 2_000_000


@torch.no_grad()
def calibrate(
    pair: PairLike,
    *,
    num_simulations: int = 500,
    num_draws: int = 99,
    seed: int = 0,
    x_like: Tensor | None = None,
    y: Tensor | None = None,
    quantities: Sequence[str | Quantity] = ("log_likelihood", "log_joint", "log_weight"),
    level: float = 0.95,
) -> Calibration:
    """Simulation-based calibration of a guide through its fitted model.

    Draws z from p(z) and x from p(x | z) (``model(size=n)``), then draws of the guide at x, and takes the rank of the
    true z among them: for each latent; for quantities of latents and data, which see a guide that ignores x while no
    single latent does; for log q(z | x), which gives the coverage of highest-density regions; and for the distance to
    a random point (TARP). With ``log_weight``, its means at the true latents and at the draws are compared as bounds on
    the evidence, which sees support that the guide misses. Streams over simulations and particles in bounded memory.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        num_simulations: latents and data to draw, at least 20.
        num_draws: independent draws of the guide at each datum, at least 19. ``num_draws + 1`` should have divisors,
            for histograms: 99 gives 100 ranks.
        seed: of everything that is drawn.
        x_like: data whose type the guide gets its data in, and beside which a model that takes no ``size`` draws
            others; ``None`` leaves them as the model draws them.
        y: classes ``(any,)``, such as those of test data; each simulation is given one of them, drawn at random.
        quantities: ``log_likelihood``, ``log_prior``, ``log_joint``, ``log_weight``, which is log p(x, z) - log q(z |
            x) and the most sensitive statistic of a difference between guide and posterior, or functions of ``{site:
            (particle, datum, *event)}`` and ``x`` that return ``(particle, datum)``.
        level: probability that an exact posterior passes all tests, at least.

    Raises:
        ValueError: too few simulations or draws, an unknown quantity, a model without latents or the site ``x``, other
            latents in the guide than in the model, a quantity that is NaN.

    References:
        Talts et al. 2018, algorithm 1. arXiv:1804.06788
        Modrák et al. 2023, Simulation-based calibration checking for Bayesian computation: the choice of test
        quantities shapes sensitivity. arXiv:2211.02383
        Yao & Domke 2023, Discriminative calibration: check Bayesian computation from simulations and flexible
        classifier, sec. 4 (the log ratio of the densities is optimal). arXiv:2305.14593
        Hermans et al. 2022. arXiv:2110.06581
        Lemos et al. 2023. arXiv:2302.03026
    """
    _check_options(num_simulations, num_draws, quantities)
    pair = as_pair(pair)
    like = None if x_like is None or x_like.dim() < 2 else as_split(x_like, y=_classes_of(x_like, y))
    programs = pair.programs_of_draws(like, y, dtype=None if x_like is None else x_like.dtype)
    programs.require("amortized", "draws", "latents")
    random = np.random.default_rng(derive_seed(seed, 2))

    with isolated(derive_seed(seed, 0)):
        latents, x, discrete, _ = _simulate(programs, 1, y)
        size, held = sum(z.numel() for z in latents.values()), pair.width(Split(x))
        at_once = min(_NUMBERS_AT_ONCE // ((num_draws + 1) * size), ELEMENTS_AT_ONCE // held, num_simulations)
        at_once = max(at_once, 1)
        particles = max(ELEMENTS_AT_ONCE // (held * at_once), 1)
        # Points for TARP that no true latent has a part in.
        points = np.concatenate(
            [side_by_side(_simulate(programs, n, y)[0], 1) for n in _sizes(num_simulations, at_once)]
        )
    scale = points.std(0)
    scale[scale == 0] = 1.0

    names = [f"{name}{index}" for name, z in latents.items() for index in _indices(z.shape[1:])]
    names += [
        quantity if isinstance(quantity, str) else getattr(quantity, "__name__", "quantity") for quantity in quantities
    ]
    parts: list[tuple[Array, ...]] = []
    bounds: list[tuple[Array, Array]] = []
    squares, fourths = np.zeros(size), np.zeros(size)
    with isolated(derive_seed(seed, 1)):
        for n in _sizes(num_simulations, at_once):
            truth, x, _, given = _simulate(programs, n, y)
            x = x if x_like is None else x.to(x_like.dtype)
            drawn = programs.draw(x, num_draws, **given)
            draws, log_q = drawn.latents, drawn.log_guide
            if set(draws) != set(truth):
                raise ValueError(f"the latents of the model are {sorted(truth)}, those of the guide {sorted(draws)}")
            both = {name: torch.cat([z.unsqueeze(0).to(draws[name]), draws[name]]) for name, z in truth.items()}
            log_q_truth = programs.score_guide(x, {name: z[:1] for name, z in both.items()}, **given)
            named: dict[str, Array] = {}
            if any(isinstance(quantity, str) for quantity in quantities):
                named = _named(programs, x, given, both, particles, torch.cat([log_q_truth[:1].to(log_q), log_q]))
            values = [
                named[quantity] if isinstance(quantity, str) else as_array(quantity(both, x)) for quantity in quantities
            ]
            stacked = np.concatenate([side_by_side(both, 2), *(value[..., None] for value in values)], axis=-1)
            if "log_weight" in quantities:
                bounds.append(_means(named["log_weight"]))
            density = num_draws - ranks(as_array(log_q_truth[0]), as_array(log_q), random)
            if np.isnan(stacked).any():
                column = int(np.isnan(stacked).any((0, 1)).argmax())
                raise ValueError(
                    f"{names[column]} is NaN at {int(np.isnan(stacked[..., column]).sum())} draws; ranks need numbers"
                )
            first = sum(len(part[0]) for part in parts)
            near = tarp(
                stacked[0, :, :size] / scale, stacked[1:, :, :size] / scale, points[first : first + n] / scale, random
            )
            score, variance, square, fourth = standardize(stacked[0, :, :size], stacked[1:, :, :size])
            squares, fourths = squares + square, fourths + fourth
            placed = ranks(stacked[0], stacked[1:], random)
            parts.append(
                (
                    np.concatenate([placed, density[:, None], near[:, None]], axis=1),
                    score,
                    variance,
                    stacked[0, :, :size],
                )
            )
    all_ranks, scores, variances, truths = (np.concatenate(column) for column in zip(*parts, strict=True))
    prior_variance = np.concatenate([points, truths]).var(0)
    scores[:, discrete], squares[discrete], fourths[discrete] = np.nan, np.nan, np.nan
    return Calibration(
        names=(*names, HIGHEST_DENSITY, TARP),
        ranks=all_ranks,
        num_latents=size,
        num_draws=num_draws,
        z_score=scores,
        contraction=1 - variances / np.where(prior_variance > 0, prior_variance, np.nan),
        expected_square=squares / (num_simulations * num_draws),
        expected_fourth=fourths / (num_simulations * num_draws),
        level=level,
        evidence=_evidence(bounds, size, num_draws),
    )


def _check_options(num_simulations: int, num_draws: int, quantities: Sequence[str | Quantity]) -> None:
    if num_simulations < 20 or num_draws < 19:
        raise ValueError(
            f"at least 20 simulations of 19 draws are required, got num_simulations={num_simulations} and "
            f"num_draws={num_draws}; 500 and 99 are usual"
        )
    unknown = [quantity for quantity in quantities if isinstance(quantity, str) and quantity not in _NAMED]
    if unknown:
        raise ValueError(f"unknown quantity {unknown[0]!r}; choose from {', '.join(_NAMED)}, or pass a function")


def _means(log_weight: Array) -> tuple[Array, Array]:
    """That of the truth and the mean of those of the draws, each ``(simulation,)``; equal where all are equal."""
    truth = log_weight[0]
    centre = np.where(np.isfinite(truth), truth, 0.0)
    return truth, centre + (log_weight[1:] - centre).mean(0)


def _evidence(parts: list[tuple[Array, Array]], latent_dim: int, num_draws: int) -> EvidenceBounds | None:
    if not parts:
        return None
    upper, lower = (np.concatenate(column) for column in zip(*parts, strict=True))
    return EvidenceBounds(upper, lower, latent_dim, num_draws)


def _simulate(programs: Programs, size: int, y: Tensor | None) -> tuple[dict[str, Tensor], Tensor, Array, Given]:
    """Latents and data of the prior predictive, which latent numbers are discrete, and what the programs were given."""
    given: Given = {} if y is None else {"y": y[torch.randint(len(y), (size,), device=y.device)]}
    x, latents, priors = simulate(programs, size, **given)
    if not latents:
        raise ValueError("calibration ranks latents, and the model draws none that the guide draws as well")
    discrete = [np.full(latents[name][0].numel(), priors[name].support.is_discrete) for name in latents]
    return latents, x, np.concatenate(discrete), given


def _classes_of(x: Tensor, y: Tensor | None) -> Tensor | None:
    """A class for each of some data, where programs are given classes."""
    return None if y is None else y[torch.arange(len(x), device=y.device) % len(y)]


def _named(
    programs: Programs, x: Tensor, given: Given, latents: dict[str, Tensor], particles: int, log_q: Tensor
) -> dict[str, Array]:
    """The quantities of `_NAMED`, each ``(particle, datum)``; log weights that are equal up to rounding are equal."""
    pieces = []
    for start in range(0, len(log_q), particles):
        some = {name: z[start : start + particles] for name, z in latents.items()}
        scores = programs.score(x, some, **given)
        pieces.append([as_array(part) for part in (scores.log_likelihood, scores.total_prior)])
    likelihood, prior = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    joint, of_guide = likelihood + prior, as_array(log_q)
    precision = torch.finfo(log_q.dtype).eps * np.maximum(np.abs(joint), np.abs(of_guide))
    weight = settled(joint - of_guide, np.where(np.isfinite(precision), precision, 0.0).max(0))
    return dict(zip(_NAMED, (likelihood, prior, joint, weight), strict=True))


def _sizes(total: int, at_once: int) -> list[int]:
    return [min(at_once, total - start) for start in range(0, total, at_once)]


def _indices(shape: Sequence[int]) -> list[str]:
    return [f"[{', '.join(map(str, index))}]" if index else "" for index in np.ndindex(*shape)]
