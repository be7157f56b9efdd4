"""Convolutional bodies of images."""

from collections.abc import Sequence

from vae_pyro.nn.base import DECODERS, ENCODERS
from vae_pyro.nn.images import ImageDecoder, ImageEncoder
from vae_pyro.nn.layers import Activation, Channels, Width


@ENCODERS.register("conv", order=2)
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


@DECODERS.register("conv", order=2)
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
