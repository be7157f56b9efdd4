"""beta-VAE: the ELBO with a weighted KL."""

from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles, Weight


@OBJECTIVES.register("beta", order=13)
class Beta(MonteCarloObjective):
    """beta-VAE: ``E_q[log p(x | z)] - beta KL(q(z | x) || p(z))``, the KL from draws.

    Args:
        beta: weight of the KL, beside ``kl_weight``.

    References:
        Higgins et al. 2017, beta-VAE, eq. 4.
    """

    def __init__(self, *, num_particles: Particles = 1, beta: Weight = 4.0) -> None:
        super().__init__(num_particles=num_particles)
        self.beta = self.kl_factor = beta

    def bound(self, densities: LogDensities) -> Tensor:
        kl = densities.log_guide - densities.log_prior
        return (densities.log_likelihood - self.beta * densities.kl_weight * kl).mean(0)
