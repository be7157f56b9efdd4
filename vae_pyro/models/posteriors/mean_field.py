"""Diagonal Gaussian posterior."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.models.posteriors.base import POSTERIORS, DiagonalNormal, Posterior


@POSTERIORS.register("mean_field", order=1)
class MeanField(Posterior):
    """Diagonal Gaussian, ``z ~ N(loc(x), scale(x)^2)``.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eq. 9. arXiv:1312.6114
    """

    gaussian = True
    factorized = True

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__(width, latent_dim)
        self.normal = DiagonalNormal(width, latent_dim)

    def forward(self, encoded: Tensor) -> TorchDistribution:
        return dist.Normal(*self.normal(encoded)).to_event(1)
