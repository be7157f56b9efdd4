"""Bodies of images: convolutions with residual blocks between them or without; what ``conv`` and ``resnet`` share."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from vae_pyro.nn.base import Decoder, Encoder
from vae_pyro.nn.layers import ACTIVATIONS


def image_shape(shape: Sequence[int], network: str) -> tuple[int, int, int]:
    """``(channel, height, width)`` of an image shape with or without channels.

    Raises:
        ValueError: ``shape`` is not that of an image.
    """
    if len(shape) == 2:
        return (1, shape[0], shape[1])
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    raise ValueError(
        f"network {network!r} requires images, x_shape (height, width) or (channel, height, width), got "
        f"{tuple(shape)}; choose 'mlp'"
    )


def halvings(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """Image sizes before and after each of ``times`` convolutions with stride 2, largest first."""
    sizes = [size]
    for _ in range(times):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class ResidualBlock(nn.Module):
    """``x + conv(act(conv(act(x))))``, without batch norm: the density of a datum must not depend on its batch.

    References:
        He et al. 2016, Identity mappings in deep residual networks, fig. 4e. arXiv:1603.05027
    """

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.branch = nn.Sequential(
            act(),
            nn.Conv2d(channels, channels, 3, padding=1),
            act(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ImageEncoder(Encoder):
    """Convolutions with stride 2, each followed by ``blocks`` residual blocks, then one dense layer."""

    def __init__(
        self,
        feature_shape: Sequence[int],
        channels: Sequence[int],
        hidden: int,
        activation: str,
        blocks: int,
        network: str,
    ) -> None:
        super().__init__(feature_shape)
        inputs, height, width = image_shape(feature_shape, network)
        self.image = (inputs, height, width)
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = []
        for outputs in channels:
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
            layers += [ResidualBlock(outputs, activation) for _ in range(blocks)]
            layers.append(act())
            inputs = outputs
        smallest = halvings((height, width), len(channels))[-1]
        layers += [nn.Flatten(), nn.Linear(inputs * prod(smallest), hidden), act()]
        self.layers = nn.Sequential(*layers)
        self.width = hidden

    def encode(self, features: Tensor) -> Tensor:
        return self.layers(features.reshape(-1, *self.image))


class ImageDecoder(Decoder):
    """Mirror image of `ImageEncoder`: a dense layer, then transposed convolutions up to exactly the image's size."""

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        channels: Sequence[int],
        hidden: int,
        activation: str,
        blocks: int,
        network: str,
    ) -> None:
        super().__init__(latent_dim, output_shape)
        parameters, *x_shape = output_shape
        planes, height, width = image_shape(x_shape, network)
        act = ACTIVATIONS[activation]
        sizes = halvings((height, width), len(channels))[::-1]
        inputs = channels[0] if channels else parameters * planes
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, hidden),
            act(),
            nn.Linear(hidden, inputs * prod(sizes[0])),
            nn.Unflatten(1, (inputs, *sizes[0])),
        ]
        for outputs, (small, large) in zip([*channels[1:], parameters * planes], pairwise(sizes), strict=True):
            layers += [ResidualBlock(inputs, activation) for _ in range(blocks)]
            # Stride 2 maps n to 2n - 1 + extra, which reaches both odd and even sizes.
            extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            layers += [act(), nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=extra)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)

    def decode(self, z: Tensor) -> Tensor:
        return self.layers(z)

    def set_output_bias(self, bias: Tensor) -> None:
        last = self.layers[-1]
        assert isinstance(last, nn.ConvTranspose2d)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.copy_(bias.reshape(last.out_channels, -1).mean(1))
