"""Thermodynamic variational objective."""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective
from vae_pyro.objectives.importance_weights import normalized_weights


@OBJECTIVES.register("tvo", order=11)
class TVO(MonteCarloObjective):
    """Thermodynamic variational objective: a left Riemann sum over the path from the guide to the posterior.

    ``log p(x) = int_0^1 E_b[log w] db`` with ``E_b`` over ``pi_b(z) ~ q(z | x) w^b``, and ``E_b[log w]`` rises with b;
    so ``sum_t (b_(t+1) - b_t) E_(b_t)[log w]`` is a lower bound: the ELBO with one partition, log p(x) in the limit of
    many. Expectations are self-normalised importance sums of the K draws (biased by O(1/K)); their gradient is
    ``E_b[d log w] + Cov_b(d log pi_b, log w)`` up to the normaliser of ``pi_b``, with the draws as constants, so the
    guide may be discrete. With a weight of the KL, ``log w`` is the weighted one.

    Args:
        num_particles: K, at least 2: a covariance is estimated from them.
        partitions: terms of the sum.
        beta_min: the first b after 0; the others are spaced evenly in log b from there to 1.

    References:
        Masrani, Le & Wood 2019, The thermodynamic variational objective, the left Riemann sum and the
        covariance gradient. arXiv:1907.00031
    """

    stop_draws = True
    importance_weighted = True

    def __init__(
        self,
        *,
        num_particles: Annotated[int, Field(ge=2)] = 10,
        partitions: Annotated[int, Field(ge=1)] = 5,
        beta_min: Annotated[float, Field(gt=0, lt=1)] = 0.03,
    ) -> None:
        super().__init__(num_particles=num_particles)
        inner = [beta_min ** (1 - step / (partitions - 1)) for step in range(partitions - 1)]
        self.points = (0.0, *inner, 1.0)

    def bound(self, densities: LogDensities) -> Tensor:
        log_weight = densities.log_weight
        terms = [(b - a) * (torch.softmax(a * log_weight, 0) * log_weight).sum(0) for a, b in pairwise(self.points)]
        return torch.stack(terms).sum(0)

    def surrogate(self, densities: LogDensities) -> Tensor:
        log_weight = densities.log_weight
        # K / (K - 1) makes the covariance of the first term, over the plain draws, the unbiased one.
        unbiased = len(log_weight) / (len(log_weight) - 1)
        total = torch.zeros_like(log_weight)
        for a, b in pairwise(self.points):
            weight = normalized_weights(a * log_weight)
            centred = log_weight.detach() - (weight * log_weight.detach()).sum(0)
            log_path = densities.log_guide + a * log_weight
            total = total + (b - a) * weight * (log_weight + unbiased * centred * log_path)
        return total.sum(0)
