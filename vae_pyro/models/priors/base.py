"""Base class of the priors p(z): modules that give a Pyro distribution with event shape ``(latent_dim,)``.

A variant is a file beside this one that registers a class in `PRIORS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.registry import ClassRegistry
from vae_pyro.models.posteriors.base import Posterior

type Encode = Callable[[Tensor], TorchDistribution]


class Prior(nn.Module, ABC):
    """The distribution of z before x is seen.

    Args:
        latent_dim: dimension of z.
        feature_shape: event shape of the encoder's input.

    Attributes:
        standard_normal: whether p(z) is a standard normal.
        made_of_posteriors: whether p(z) is a mixture of posteriors, which the guide must have given features alone.
    """

    standard_normal: ClassVar[bool] = False
    made_of_posteriors: ClassVar[bool] = False

    def __init__(self, latent_dim: int, feature_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim, self.feature_shape = latent_dim, tuple(feature_shape)

    @classmethod
    def check(cls, latent_dim: int, posterior: type[Posterior]) -> None:
        """Refuse what the prior cannot be combined with.

        Raises:
            ValueError: the message names the choice and the way out.
        """

    @property
    def max_width(self) -> int:
        """Numbers that the widest tensor of a density holds for each particle and datum."""
        return self.latent_dim

    @property
    def initial_rows(self) -> int:
        """Number of training data that `initialize` uses."""
        return 0

    def initialize(self, features: Tensor) -> None:
        """Start from training features ``(datum, *feature_shape)``, in random order."""

    @abstractmethod
    def forward(self, encode: Encode) -> TorchDistribution:
        """The prior, with batch shape () and event shape ``(latent_dim,)``.

        Args:
            encode: maps features to q(z | x); only a prior that is made of posteriors calls it.
        """


PRIORS: ClassRegistry[Prior] = ClassRegistry("prior")
