"""Importance weighted bound for data with missing values."""

from vae_pyro.objectives.base import OBJECTIVES, Particles
from vae_pyro.objectives.iwae import IWAE


@OBJECTIVES.register("miwae_missing", order=7)
class MIWAEMissing(IWAE):
    """Missing-data importance weighted bound: `iwae` of the observed elements of each datum.

    ``L_K = E[log 1/K sum_k p(x_obs | z_k) p(z_k) / q(z_k | x_obs)]`` bounds log p(x_obs), the log likelihood where data
    are missing at random. Log densities leave masked elements out whatever the objective, so that value and gradient
    are those of `iwae` with as many particles; the name and the default of 20 are the paper's, which calls it MIWAE
    (not the `miwae` of Rainforth et al. 2018).

    Args:
        num_particles: K.

    References:
        Mattei & Frellsen 2019, MIWAE: deep generative modelling and imputation of incomplete data sets, eq. 4.
        arXiv:1812.02633
    """

    def __init__(self, *, num_particles: Particles = 20) -> None:
        super().__init__(num_particles=num_particles)
