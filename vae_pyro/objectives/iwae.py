"""Importance weighted bound."""

from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles
from vae_pyro.objectives.importance_weights import log_mean_exp


@OBJECTIVES.register("iwae", order=4)
class IWAE(MonteCarloObjective):
    """Importance weighted bound ``L_K = E[log 1/K sum_k w_k]``, which rises to log p(x) with K.

    Args:
        num_particles: K.

    References:
        Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders, eq. 8. arXiv:1509.00519
    """

    importance_weighted = True

    def __init__(self, *, num_particles: Particles = 5) -> None:
        super().__init__(num_particles=num_particles)

    def bound(self, densities: LogDensities) -> Tensor:
        return log_mean_exp(densities.log_weight)
