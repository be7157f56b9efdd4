"""Standard normal prior."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.models.priors.base import PRIORS, Encode, Prior


@PRIORS.register("normal", order=1)
class StandardNormal(Prior):
    """Standard normal."""

    standard_normal = True
    loc: Tensor

    def __init__(self, latent_dim: int, feature_shape: Sequence[int]) -> None:
        super().__init__(latent_dim, feature_shape)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self, encode: Encode) -> TorchDistribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
