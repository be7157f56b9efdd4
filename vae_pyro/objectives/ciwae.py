"""Convex combination of the ELBO and the importance weighted bound."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, Particles
from vae_pyro.objectives.importance_weights import log_mean_exp
from vae_pyro.objectives.iwae import IWAE


@OBJECTIVES.register("ciwae", order=9)
class CIWAE(IWAE):
    """Convex combination ``beta ELBO + (1 - beta) L_K`` of the ELBO and the importance weighted bound.

    Args:
        num_particles: K.
        beta: share of the ELBO.

    References:
        Rainforth et al. 2018, Tighter variational bounds are not necessarily better, CIWAE. arXiv:1802.04537
    """

    def __init__(self, *, num_particles: Particles = 5, beta: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None:
        super().__init__(num_particles=num_particles)
        self.beta = beta

    def bound(self, densities: LogDensities) -> Tensor:
        return self.beta * densities.log_weight.mean(0) + (1 - self.beta) * log_mean_exp(densities.log_weight)
