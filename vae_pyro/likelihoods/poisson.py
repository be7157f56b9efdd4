"""Poisson counts."""

from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS
from vae_pyro.likelihoods.counts import Counts
from vae_pyro.likelihoods.double_precision import PoissonInDouble


@LIKELIHOODS.register("poisson", order=9)
class Poisson(Counts):
    """Independent Poisson counts, with densities computed in float64."""

    def forward(self, output: Tensor) -> TorchDistribution:
        return PoissonInDouble(self.rate(output))
