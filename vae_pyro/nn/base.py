"""Base classes of encoder and decoder bodies: plain `torch.nn`, no probability.

An encoder maps features ``(*batch, *feature_shape)`` to ``(*batch, width)``; a decoder maps latents
``(*batch, latent_dim)`` to ``(*batch, *output_shape)``, where ``output_shape`` is ``(parameters, *x_shape)``. Any
number of batch dimensions goes through, so that ``(particle, datum)`` costs one product.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from vae_pyro.core.registry import ClassRegistry


class Encoder(nn.Module, ABC):
    """Features ``(*batch, *feature_shape)`` -> ``(*batch, width)``.

    Attributes:
        width: number of numbers that come out for each datum.
    """

    width: int

    def __init__(self, feature_shape: Sequence[int]) -> None:
        super().__init__()
        self.feature_shape = tuple(feature_shape)

    def forward(self, features: Tensor) -> Tensor:
        batch = features.shape[: features.dim() - len(self.feature_shape)]
        return self.encode(features.reshape(-1, *self.feature_shape)).reshape(*batch, self.width)

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """``(n, *feature_shape)`` -> ``(n, width)``."""


class Decoder(nn.Module, ABC):
    """Latents ``(*batch, latent_dim)`` -> ``(*batch, *output_shape)``."""

    def __init__(self, latent_dim: int, output_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.output_shape = tuple(output_shape)

    @property
    def max_width(self) -> int:
        """Numbers that the widest dense layer gives for each particle and datum; 0 without one."""
        return max((layer.out_features for layer in self.modules() if isinstance(layer, nn.Linear)), default=0)

    def forward(self, z: Tensor) -> Tensor:
        return self.decode(z.reshape(-1, self.latent_dim)).reshape(*z.shape[:-1], *self.output_shape)

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """``(n, latent_dim)`` -> ``(n, *output_shape)``, or that flattened."""

    @abstractmethod
    def set_output_bias(self, bias: Tensor) -> None:
        """Start the last layer's bias at ``bias`` of shape ``output_shape``, as near as the layer can hold it."""


ENCODERS: ClassRegistry[Encoder] = ClassRegistry("encoder")
DECODERS: ClassRegistry[Decoder] = ClassRegistry("decoder")
