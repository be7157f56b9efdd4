"""VampPrior: a mixture of the posteriors of learned pseudo-inputs."""

from collections.abc import Sequence
from typing import Annotated

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.models.posteriors.base import Posterior
from vae_pyro.models.priors.base import PRIORS, Encode, Prior


@PRIORS.register("vamp", order=3)
class VampPrior(Prior):
    """Uniform mixture of the posteriors of learned pseudo-inputs, which start at training data.

    Args:
        feature_shape: event shape of a pseudo-input.
        components: number of pseudo-inputs.

    References:
        Tomczak & Welling 2018, VAE with a VampPrior, eq. 9. arXiv:1705.07120
    """

    made_of_posteriors = True

    def __init__(
        self, latent_dim: int, feature_shape: Sequence[int], *, components: Annotated[int, Field(ge=1)] = 500
    ) -> None:
        super().__init__(latent_dim, feature_shape)
        self.pseudo_inputs = nn.Parameter(0.05 + 0.01 * torch.randn(components, *feature_shape))

    @classmethod
    def check(cls, latent_dim: int, posterior: type[Posterior]) -> None:
        if not posterior.cheap_density:
            raise ValueError(
                f"prior 'vamp' evaluates q(z | u) at every z, which posterior {posterior.__name__!r} can do only one "
                "dimension at a time; choose posterior 'mean_field' or 'full_rank'"
            )

    @property
    def max_width(self) -> int:
        return len(self.pseudo_inputs) * self.latent_dim

    @property
    def initial_rows(self) -> int:
        return len(self.pseudo_inputs)

    def initialize(self, features: Tensor) -> None:
        with torch.no_grad():
            rows = torch.arange(len(self.pseudo_inputs), device=features.device)
            # Copies of one datum would keep equal gradients; the noise that they start with separates them.
            repeated = (rows >= len(features)).reshape(-1, *(1,) * len(self.feature_shape))
            noise = torch.where(repeated, self.pseudo_inputs - self.pseudo_inputs.mean(0), 0.0)
            self.pseudo_inputs.copy_(features[rows % len(features)] + noise)

    def forward(self, encode: Encode) -> TorchDistribution:
        component = encode(self.pseudo_inputs)
        weight = torch.zeros(len(self.pseudo_inputs), dtype=self.pseudo_inputs.dtype, device=self.pseudo_inputs.device)
        return dist.MixtureSameFamily(dist.Categorical(logits=weight), component)
