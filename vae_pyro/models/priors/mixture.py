"""Mixture of Gaussians as prior."""

from collections.abc import Sequence
from typing import Annotated

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import nn

from vae_pyro.models.priors.base import PRIORS, Encode, Prior


@PRIORS.register("mixture", order=2)
class Mixture(Prior):
    """Mixture of diagonal Gaussians with learned weights, locations and scales.

    Args:
        components: number of components.

    References:
        Dilokthanakul et al. 2016, Deep unsupervised clustering with Gaussian mixture variational autoencoders.
        arXiv:1611.02648
    """

    def __init__(
        self, latent_dim: int, feature_shape: Sequence[int], *, components: Annotated[int, Field(ge=1)] = 10
    ) -> None:
        super().__init__(latent_dim, feature_shape)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    @property
    def max_width(self) -> int:
        return len(self.logits) * self.latent_dim

    def forward(self, encode: Encode) -> TorchDistribution:
        component = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), component)
