"""Base class of the families q(z | x) of amortized posteriors.

A posterior turns the encoder's output ``(*batch, width)`` into a Pyro distribution with batch shape ``batch`` and event
shape ``(latent_dim,)``. A variant is a file beside this one that registers a class in `POSTERIORS`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.registry import ClassRegistry


class Posterior(nn.Module, ABC):
    """Encoder output -> distribution of z given x.

    Args:
        width: of the encoder's output.
        latent_dim: dimension of z.

    Attributes:
        gaussian: whether the distribution is a Gaussian.
        factorized: whether it is a product over latent dimensions.
        closed_moments: whether its mean and variance are known in closed form.
        cheap_density: whether the density at any z costs as much as a draw.
    """

    gaussian: ClassVar[bool] = False
    factorized: ClassVar[bool] = False
    closed_moments: ClassVar[bool] = True
    cheap_density: ClassVar[bool] = True

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.width, self.latent_dim = width, latent_dim

    @classmethod
    def check(cls, latent_dim: int) -> None:
        """Refuse a latent dimension that the family cannot have.

        Raises:
            ValueError: the message names the dimension and the way out.
        """

    @abstractmethod
    def forward(self, encoded: Tensor) -> TorchDistribution:
        """``(*batch, width)`` -> distribution with batch shape ``batch``, event shape ``(latent_dim,)``."""


POSTERIORS: ClassRegistry[Posterior] = ClassRegistry("posterior")


class DiagonalNormal(nn.Module):
    """Encoder output -> location and scale of a diagonal Gaussian, each ``(*batch, latent_dim)``."""

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * latent_dim)

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.linear(encoded).chunk(2, dim=-1)
        return loc, log_scale.exp()
