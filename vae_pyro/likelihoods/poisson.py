"""Poisson counts."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS
from vae_pyro.likelihoods.counts import Counts


@LIKELIHOODS.register("poisson", order=9)
class Poisson(Counts):
    """Independent Poisson counts."""

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Poisson(self.rate(output))
