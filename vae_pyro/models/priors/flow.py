"""Normalizing flow as prior."""

from collections.abc import Sequence
from typing import Annotated, Any

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution, transforms
from torch import Tensor, nn

from vae_pyro.models.posteriors.base import Posterior
from vae_pyro.models.priors.base import PRIORS, Encode, Prior
from vae_pyro.models.priors.coupling import SplineCoupling, SplineOption
from vae_pyro.nn.layers import Widths


@PRIORS.register("flow", order=4)
class FlowPrior(Prior):
    """Neural spline flow over a standard normal: coupling layers, so that draws and densities both cost one pass.

    Args:
        latent_dim: dimension of z, at least 2.
        steps: number of coupling layers, with the order of z reversed between them.
        hidden: widths of each layer's network.
        bins: number of segments of each spline.
        bound: the splines act on [-bound, bound] and are the identity outside.
        spline: ``linear`` or ``quadratic``, of which their rational segments are quotients.

    References:
        Durkan et al. 2019, Neural spline flows, sec. 3. arXiv:1906.04032
        Dolatabadi et al. 2020, Invertible generative modeling using linear rational splines. arXiv:2001.05168
    """

    loc: Tensor
    order: Tensor

    def __init__(
        self,
        latent_dim: int,
        feature_shape: Sequence[int],
        *,
        steps: Annotated[int, Field(ge=1)] = 4,
        hidden: Widths = (64,),
        bins: Annotated[int, Field(ge=2)] = 8,
        bound: Annotated[float, Field(gt=0)] = 4.0,
        spline: SplineOption = "linear",
    ) -> None:
        super().__init__(latent_dim, feature_shape)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("order", torch.arange(latent_dim - 1, -1, -1), persistent=False)
        self.steps = nn.ModuleList(
            SplineCoupling(latent_dim, hidden, bins=bins, bound=bound, spline=spline) for _ in range(steps)
        )

    @classmethod
    def check(cls, latent_dim: int, posterior: type[Posterior]) -> None:
        if latent_dim < 2:
            raise ValueError(f"prior 'flow' requires latent_dim >= 2, got {latent_dim}; choose 'mixture'")

    def forward(self, encode: Encode) -> TorchDistribution:
        base = dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        chain: list[Any] = []
        for step in self.steps:
            assert isinstance(step, SplineCoupling)
            chain += [step.transform(), transforms.permute(self.latent_dim, self.order)]
        return dist.TransformedDistribution(base, chain)
