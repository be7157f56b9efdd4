"""Real elements with Laplace noise."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS
from vae_pyro.likelihoods.location_scale import LocationScale


@LIKELIHOODS.register("laplace", order=4)
class Laplace(LocationScale):
    """Independent Laplace elements: absolute error with its normaliser.

    Args:
        scale: see `LocationScale`.
        min_scale: see `LocationScale`.
    """

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Laplace(*self.loc_scale(output))
