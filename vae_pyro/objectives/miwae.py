"""Multiply importance weighted bound: the mean of independent importance weighted bounds."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles
from vae_pyro.objectives.importance_weights import log_mean_exp


@OBJECTIVES.register("miwae", order=6)
class MIWAE(MonteCarloObjective):
    """Multiply importance weighted bound: the mean of M independent bounds ``L_K``.

    Not the MIWAE of Mattei & Frellsen 2019 (arXiv:1812.02633), which is `miwae_missing`.

    Args:
        num_particles: K, draws of z in each group.
        num_groups: M; a datum has M K draws, the attribute ``num_particles``.

    References:
        Rainforth et al. 2018, Tighter variational bounds are not necessarily better, MIWAE. arXiv:1802.04537
    """

    importance_weighted = True

    def __init__(self, *, num_particles: Particles = 8, num_groups: Annotated[int, Field(ge=1)] = 8) -> None:
        super().__init__(num_particles=num_particles * num_groups)
        self.num_groups = num_groups

    def grouped(self, densities: LogDensities) -> Tensor:
        """Log weights, shape ``(group, particle, datum)``."""
        return densities.log_weight.unflatten(0, (self.num_groups, -1))

    def bound(self, densities: LogDensities) -> Tensor:
        return log_mean_exp(self.grouped(densities), 1).mean(0)
