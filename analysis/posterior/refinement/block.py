"""Draws at a block of data, and resampling by importance weights."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.stats.importance import effective_sample_size, log_evidence, unreliable
from analysis.stats.pareto_smoothing import pareto_k, pareto_smooth
from vae_pyro.data.split import Given
from vae_pyro.densities.programs.programs import Programs

type Array = np.ndarray[Any, Any]
type Latents = dict[str, Tensor]


@dataclass(frozen=True)
class BlockDraws:
    """Draws at some data.

    Attributes:
        latents: of each site, ``(chain, draw, datum, *event)``.
        diagnostics: of each datum, ``(datum,)``.
    """

    latents: Latents
    diagnostics: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposals:
    """Independent draws with their importance weights.

    Attributes:
        latents: of each site, ``(draw, datum, *event)``.
        log_weight: log p(x, z) - log q(z), nats, ``(draw, datum)``, float64.
    """

    latents: Latents
    log_weight: Array

    def diagnostics(self) -> dict[str, Array]:
        """k-hat, effective sample size and log p(x) of the weights, and whether they can be relied on."""
        shape, size = pareto_k(self.log_weight), effective_sample_size(self.log_weight)
        log_px, log_px_se = log_evidence(self.log_weight)
        return {
            "pareto_k": shape,
            "effective_sample_size": size,
            "log_px": log_px,
            "log_px_se": log_px_se,
            "reliable": ~unreliable(shape, size, len(self.log_weight)),
        }

    def first(self, num_draws: int) -> Latents:
        """The first draws as one chain."""
        return {name: value[None, :num_draws] for name, value in self.latents.items()}

    def resampled(self, num_draws: int, random: np.random.Generator) -> Latents:
        """Draws chosen by their Pareto smoothed weights, as one chain.

        References:
            Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646
        """
        return select(self.latents, systematic(pareto_smooth(self.log_weight).log_weight, num_draws, random))


def select(latents: Latents, index: Array) -> Latents:
    """Draws ``(draw, datum)`` by their numbers at each datum, as one chain."""
    rows = torch.as_tensor(index)
    found = {}
    for name, value in latents.items():
        at = rows.to(value.device)
        found[name] = value[at, torch.arange(value.shape[1], device=value.device)][None]
    return found


def systematic(log_weight: Array, num_draws: int, random: np.random.Generator) -> Array:
    """Numbers of draws chosen by weight, in random order, ``(num_draws, datum)``.

    References:
        Kitagawa 1996, Monte Carlo filter and smoother for non-Gaussian nonlinear state space models, JCGS 5, appendix
        (stratified and systematic resampling). doi:10.1080/10618600.1996.10474692
    """
    weight = np.exp(log_weight - log_weight.max(0))
    edges = weight.cumsum(0) / weight.sum(0)
    chosen = np.empty((num_draws, log_weight.shape[1]), np.int64)
    for datum in range(log_weight.shape[1]):
        points = (np.arange(num_draws) + random.random()) / num_draws
        chosen[:, datum] = np.searchsorted(edges[:, datum], points).clip(max=len(weight) - 1)
        random.shuffle(chosen[:, datum])
    return chosen


def of_guide(programs: Programs, x: Tensor, given: Given, num_draws: int) -> Proposals:
    """Draws of the amortized guide with their weights."""
    densities = programs.log_densities(x, num_draws, **given)
    return Proposals(densities.latents, densities.log_weight.double().cpu().numpy())
