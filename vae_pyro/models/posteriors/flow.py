"""Normalizing flow as posterior."""

from typing import Annotated, Any

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution, transforms
from torch import Tensor, nn

from vae_pyro.models.posteriors.base import POSTERIORS, DiagonalNormal, Posterior
from vae_pyro.nn.layers import Widths


@POSTERIORS.register("flow", order=3)
class Flow(Posterior):
    """Inverse autoregressive flow: a diagonal Gaussian, then affine autoregressive steps given the encoder's output.

    A draw and its own density cost one pass; the density at any other z costs ``latent_dim`` passes.

    Args:
        latent_dim: dimension of z, at least 2.
        steps: number of autoregressive steps, with the order of z reversed between them.
        hidden: widths of each step's masked network.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow, eqs. 13-14, the form
        with gates. arXiv:1606.04934
    """

    closed_moments = False
    cheap_density = False

    def __init__(
        self, width: int, latent_dim: int, *, steps: Annotated[int, Field(ge=1)] = 2, hidden: Widths = (128,)
    ) -> None:
        super().__init__(width, latent_dim)
        self.normal = DiagonalNormal(width, latent_dim)
        self.steps = nn.ModuleList(
            transforms.conditional_affine_autoregressive(latent_dim, width, list(hidden), stable=True)
            for _ in range(steps)
        )

    @classmethod
    def check(cls, latent_dim: int) -> None:
        if latent_dim < 2:
            raise ValueError(f"posterior 'flow' requires latent_dim >= 2, got {latent_dim}; choose 'mean_field'")

    def forward(self, encoded: Tensor) -> TorchDistribution:
        base = dist.Normal(*self.normal(encoded)).to_event(1)
        order = torch.arange(self.latent_dim - 1, -1, -1, device=encoded.device)
        chain: list[Any] = []
        for step in self.steps:
            condition: Any = step.condition
            chain += [condition(encoded), transforms.permute(self.latent_dim, order)]
        return dist.TransformedDistribution(base, chain)
