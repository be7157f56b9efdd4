"""Encoder and decoder bodies: plain `torch.nn`, no probability.

An encoder maps features ``(*batch, *feature_shape)`` to ``(*batch, width)``; a decoder maps latents
``(*batch, latent_dim)`` to ``(*batch, *output_shape)``, where ``output_shape`` is ``(parameters, *x_shape)``. Any
number of batch dimensions goes through, so that ``(particle, datum)`` costs one product.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vae_pyro.core.registry import Registry

type Activation = Literal["relu", "leaky_relu", "tanh", "elu", "gelu", "silu", "softplus"]
type DenseActivation = Activation | Literal["gated"]
type Width = Annotated[int, Field(gt=0)]
type Widths = tuple[Width, ...]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


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

    def forward(self, z: Tensor) -> Tensor:
        return self.decode(z.reshape(-1, self.latent_dim)).reshape(*z.shape[:-1], *self.output_shape)

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """``(n, latent_dim)`` -> ``(n, *output_shape)``, or that flattened."""

    @abstractmethod
    def set_output_bias(self, bias: Tensor) -> None:
        """Start the last layer's bias at ``bias`` of shape ``output_shape``, as near as the layer can hold it."""


ENCODERS: Registry[Encoder] = Registry("encoder")
DECODERS: Registry[Decoder] = Registry("decoder")


def initialize_weights(body: nn.Module, init: str) -> None:
    """Draw the weights of every dense and convolutional layer anew, from torch's generator, and zero their biases.

    Masked layers of autoregressive networks are left as they are: their fan-in is not that of their weight.

    Args:
        body: changed in place.
        init: ``torch`` (leaves the layers as they are), ``glorot`` or ``he``.
    """
    if init == "torch":
        return
    for layer in body.modules():
        if type(layer) in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d):
            assert isinstance(layer.weight, Tensor)
            if init == "glorot":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight)
            if isinstance(layer.bias, Tensor):
                nn.init.zeros_(layer.bias)


class Gated(nn.Module):
    """Dense layer times a learned gate, ``(W x + b) * sigmoid(V x + c)``.

    References:
        Dauphin et al. 2017, Language modeling with gated convolutional networks, eq. 1. arXiv:1612.08083
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.both = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.glu(self.both(x), dim=-1)


def dense_layers(inputs: int, hidden: Sequence[int], activation: str) -> tuple[list[nn.Module], int]:
    """Hidden layers of a perceptron and the width of the last."""
    layers: list[nn.Module] = []
    for width in hidden:
        if activation == "gated":
            layers.append(Gated(inputs, width))
        else:
            layers += [nn.Linear(inputs, width), ACTIVATIONS[activation]()]
        inputs = width
    return layers, inputs


@ENCODERS.register("mlp")
class MLPEncoder(Encoder):
    """Perceptron of any depth; ``hidden=[]`` leaves the features as they are, which makes a linear VAE.

    Args:
        feature_shape: event shape of the features, flattened here.
        hidden: widths of the hidden layers, first to last.
        activation: ``gated`` multiplies each layer by a learned gate instead (Tomczak & Welling 2018).
    """

    def __init__(
        self, feature_shape: Sequence[int], *, hidden: Widths = (256, 256), activation: DenseActivation = "relu"
    ) -> None:
        super().__init__(feature_shape)
        layers, self.width = dense_layers(prod(feature_shape), hidden, activation)
        self.layers = nn.Sequential(*layers)

    def encode(self, features: Tensor) -> Tensor:
        return self.layers(features.flatten(1))


@DECODERS.register("mlp")
class MLPDecoder(Decoder):
    """Perceptron of any depth with a linear output; ``hidden=[]`` makes a linear decoder.

    Args:
        latent_dim: dimension of z.
        output_shape: ``(parameters, *x_shape)``.
        hidden: widths of the hidden layers, from z to x.
        activation: as for the encoder.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        hidden: Widths = (256, 256),
        activation: DenseActivation = "relu",
    ) -> None:
        super().__init__(latent_dim, output_shape)
        layers, width = dense_layers(latent_dim, hidden, activation)
        self.layers = nn.Sequential(*layers, nn.Linear(width, prod(output_shape)))

    def decode(self, z: Tensor) -> Tensor:
        return self.layers(z)

    def set_output_bias(self, bias: Tensor) -> None:
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(bias.flatten())


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
        f"network {network!r} wants images, x_shape (height, width) or (channel, height, width), got "
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


type Channels = Annotated[tuple[Width, ...], Field(min_length=1)]


@ENCODERS.register("conv")
class ConvEncoder(ImageEncoder):
    """Convolutions of 3 x 3 with stride 2, for images of any size and channel count.

    Args:
        feature_shape: ``(height, width)`` or ``(channel, height, width)``.
        channels: channels of each convolution; each halves the image.
        hidden: width of the dense layer after them.
        activation: after each layer.
    """

    def __init__(
        self,
        feature_shape: Sequence[int],
        *,
        channels: Channels = (32, 64),
        hidden: Width = 256,
        activation: Activation = "relu",
    ) -> None:
        super().__init__(feature_shape, channels, hidden, activation, 0, "conv")


@DECODERS.register("conv")
class ConvDecoder(ImageDecoder):
    """Transposed convolutions of 3 x 3 with stride 2, up to exactly the image's size.

    Args:
        latent_dim: dimension of z.
        output_shape: ``(parameters, *x_shape)`` with an image's ``x_shape``.
        channels: channels of each stage, from z to x; each doubles the image.
        hidden: width of the dense layer before them.
        activation: before each layer but the first.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        channels: Channels = (64, 32),
        hidden: Width = 256,
        activation: Activation = "relu",
    ) -> None:
        super().__init__(latent_dim, output_shape, channels, hidden, activation, 0, "conv")


@ENCODERS.register("resnet")
class ResNetEncoder(ImageEncoder):
    """As ``conv``, with residual blocks after each convolution.

    Args:
        feature_shape: as for ``conv``.
        channels: as for ``conv``.
        hidden: as for ``conv``.
        activation: as for ``conv``.
        blocks: residual blocks at each size.
    """

    def __init__(
        self,
        feature_shape: Sequence[int],
        *,
        channels: Channels = (32, 64),
        hidden: Width = 256,
        activation: Activation = "silu",
        blocks: Width = 1,
    ) -> None:
        super().__init__(feature_shape, channels, hidden, activation, blocks, "resnet")


@DECODERS.register("resnet")
class ResNetDecoder(ImageDecoder):
    """As ``conv``, with residual blocks before each transposed convolution.

    Args:
        latent_dim: as for ``conv``.
        output_shape: as for ``conv``.
        channels: as for ``conv``.
        hidden: as for ``conv``.
        activation: as for ``conv``.
        blocks: residual blocks at each size.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        channels: Channels = (64, 32),
        hidden: Width = 256,
        activation: Activation = "silu",
        blocks: Width = 1,
    ) -> None:
        super().__init__(latent_dim, output_shape, channels, hidden, activation, blocks, "resnet")
