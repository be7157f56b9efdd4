"""Convolutional bodies of images with residual blocks."""

from collections.abc import Sequence

from vae_pyro.nn.base import DECODERS, ENCODERS
from vae_pyro.nn.images import ImageDecoder, ImageEncoder
from vae_pyro.nn.layers import Activation, Channels, Width


@ENCODERS.register("resnet", order=3)
class ResNetEncoder(ImageEncoder):
    """As ``conv``, with residual blocks after each convolution.

    Args:
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


@DECODERS.register("resnet", order=3)
class ResNetDecoder(ImageDecoder):
    """As ``conv``, with residual blocks before each transposed convolution.

    Args:
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
