"""Controlled capacity: the KL is driven to a target that a schedule raises."""

import torch
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles, Weight
from vae_pyro.objectives.divergences import kl_terms


@OBJECTIVES.register("capacity", order=14)
class Capacity(MonteCarloObjective):
    """Controlled capacity: ``E_q[log p(x | z)] - gamma |KL - C|``, with C raised during the fit.

    The absolute value is that of the minibatch mean of the KL, as in disentanglement_lib: so C is the information
    that the code carries about a datum *on average*, and data may share it unevenly. (The equation as printed is that
    of one datum.) The KL is closed where it can be. ``kl_weight`` multiplies the penalty.

    Args:
        gamma: weight of the penalty.
        capacity: C in nats.

    Attributes:
        capacity: C as a 0-d tensor; a schedule moves it by ``objective.capacity.fill_(...)``.

    References:
        Burgess et al. 2018, Understanding disentangling in beta-VAE, eq. 8. arXiv:1804.03599
        Locatello et al. 2019, Challenging common assumptions in the unsupervised learning of disentangled
        representations (disentanglement_lib). arXiv:1811.12359
    """

    capacity: Tensor

    def __init__(self, *, num_particles: Particles = 1, gamma: Weight = 100.0, capacity: Weight = 25.0) -> None:
        super().__init__(num_particles=num_particles)
        self.gamma = gamma
        self.capacity = torch.tensor(capacity, dtype=torch.float32)

    def bound(self, densities: LogDensities) -> Tensor:
        kl = torch.stack([term.sum(-1).mean(0) for term in kl_terms(densities)]).sum()
        penalty = self.gamma * (kl - self.capacity).abs()
        return densities.log_likelihood.mean(0) - densities.kl_weight * penalty
