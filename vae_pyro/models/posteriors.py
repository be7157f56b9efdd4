"""q(z | x): families of amortized posteriors on top of an encoder.

A posterior turns the encoder's output ``(*batch, width)`` into a Pyro distribution with batch shape ``batch`` and event
shape ``(latent_dim,)``.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution, transforms
from torch import Tensor, nn

from vae_pyro.core.registry import Registry
from vae_pyro.nn.layers import Widths


class Posterior(nn.Module, ABC):
    """Encoder output -> distribution of z given x.

    Attributes:
        closed_moments: whether the distribution's mean and variance are known in closed form.
        cheap_density: whether the density at any z costs as much as a draw.
    """

    closed_moments: ClassVar[bool] = True
    cheap_density: ClassVar[bool] = True

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.width, self.latent_dim = width, latent_dim

    @classmethod
    def check(cls, latent_dim: int) -> None:
        """Refuse a latent dimension that the family cannot have, with a ValueError."""

    @abstractmethod
    def forward(self, encoded: Tensor) -> TorchDistribution:
        """``(*batch, width)`` -> distribution with batch shape ``batch``, event shape ``(latent_dim,)``."""


POSTERIORS: Registry[Posterior] = Registry("posterior")


class DiagonalNormal(nn.Module):
    """Encoder output -> location and scale of a diagonal Gaussian, each ``(*batch, latent_dim)``."""

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * latent_dim)

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.linear(encoded).chunk(2, dim=-1)
        return loc, log_scale.exp()


@POSTERIORS.register("mean_field")
class MeanField(Posterior):
    """Diagonal Gaussian, ``z ~ N(loc(x), scale(x)^2)``.

    Args:
        width: width of the encoder's output.
        latent_dim: dimension of z.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eq. 9. arXiv:1312.6114
    """

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__(width, latent_dim)
        self.normal = DiagonalNormal(width, latent_dim)

    def forward(self, encoded: Tensor) -> TorchDistribution:
        return dist.Normal(*self.normal(encoded)).to_event(1)


@POSTERIORS.register("full_rank")
class FullRank(Posterior):
    """Gaussian with a covariance of its own for each datum, from a Cholesky factor.

    Args:
        width: width of the encoder's output.
        latent_dim: dimension of z.

    References:
        Kingma & Welling 2019, An introduction to variational autoencoders, sec. 2.5.1. arXiv:1906.02691
    """

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


@POSTERIORS.register("flow")
class Flow(Posterior):
    """Inverse autoregressive flow: a diagonal Gaussian, then affine autoregressive steps that see the encoder's output.

    A draw and its own density cost one pass; the density at any other z costs ``latent_dim`` passes.

    Args:
        width: width of the encoder's output.
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
        self,
        width: int,
        latent_dim: int,
        *,
        steps: Annotated[int, Field(ge=1)] = 2,
        hidden: Widths = (128,),
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
            raise ValueError(f"posterior 'flow' wants latent_dim >= 2, got {latent_dim}; choose 'mean_field'")

    def forward(self, encoded: Tensor) -> TorchDistribution:
        base = dist.Normal(*self.normal(encoded)).to_event(1)
        order = torch.arange(self.latent_dim - 1, -1, -1, device=encoded.device)
        chain: list[Any] = []
        for step in self.steps:
            condition: Any = step.condition
            chain += [condition(encoded), transforms.permute(self.latent_dim, order)]
        return dist.TransformedDistribution(base, chain)
