"""Real elements with Gaussian noise."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS, DataForm
from vae_pyro.likelihoods.location_scale import LocationScale


@LIKELIHOODS.register("gaussian", order=3)
class Gaussian(LocationScale):
    """Independent Gaussian elements, with a scale that is fixed and stated, or learned.

    Args:
        scale: see `LocationScale`.
        min_scale: see `LocationScale`.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, appendix C.2. arXiv:1312.6114
    """

    default_for = DataForm.NUMBERS

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Normal(*self.loc_scale(output))
