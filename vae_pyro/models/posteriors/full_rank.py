"""Gaussian posterior with full covariance."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.models.posteriors.base import POSTERIORS, DiagonalNormal, Posterior


@POSTERIORS.register("full_rank", order=2)
class FullRank(Posterior):
    """Gaussian with a covariance of its own for each datum, from a Cholesky factor.

    References:
        Kingma & Welling 2019, An introduction to variational autoencoders, sec. 2.5.1. arXiv:1906.02691
    """

    gaussian = True
    position: Tensor

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__(width, latent_dim)
        self.normal = DiagonalNormal(width, latent_dim)
        row, column = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("position", row * latent_dim + column, persistent=False)
        self.lower = nn.Linear(width, len(row)) if len(row) else None

    def forward(self, encoded: Tensor) -> TorchDistribution:
        loc, diagonal = self.normal(encoded)
        scale_tril = torch.diag_embed(diagonal)
        if self.lower is not None:
            flat = torch.zeros_like(scale_tril).flatten(-2)
            lower = flat.index_add(-1, self.position, self.lower(encoded))
            scale_tril = scale_tril + lower.unflatten(-1, (self.latent_dim, self.latent_dim))
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)
