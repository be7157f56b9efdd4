"""Perceptrons."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from vae_pyro.nn.base import DECODERS, ENCODERS, Decoder, Encoder
from vae_pyro.nn.layers import DenseActivation, Share, Widths, dense_layers


@ENCODERS.register("mlp", order=1)
class MLPEncoder(Encoder):
    """Perceptron of any depth; ``hidden=[]`` leaves the features as they are, which makes a linear VAE.

    Args:
        feature_shape: event shape of the features, flattened here.
        hidden: widths of the hidden layers, first to last.
        activation: ``gated`` multiplies each layer by a learned gate instead (Tomczak & Welling 2018).
        dropout: probability with which each hidden unit is set to 0 while training.
        batch_norm: normalise each hidden layer over the batch while training, and by running statistics elsewhere.
    """

    def __init__(
        self,
        feature_shape: Sequence[int],
        *,
        hidden: Widths = (256, 256),
        activation: DenseActivation = "relu",
        dropout: Share = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(feature_shape)
        inputs = prod(feature_shape)
        layers, self.width = dense_layers(inputs, hidden, activation, dropout=dropout, batch_norm=batch_norm)
        self.layers = nn.Sequential(*layers)

    def encode(self, features: Tensor) -> Tensor:
        return self.layers(features.flatten(1))


@DECODERS.register("mlp", order=1)
class MLPDecoder(Decoder):
    """Perceptron of any depth with a linear output; ``hidden=[]`` makes a linear decoder.

    Args:
        latent_dim: dimension of z.
        output_shape: ``(parameters, *x_shape)``.
        hidden: widths of the hidden layers, from z to x.
        activation: as for the encoder, and likewise ``dropout`` and ``batch_norm``, whose statistics in training are
            over particles and data together.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        hidden: Widths = (256, 256),
        activation: DenseActivation = "relu",
        dropout: Share = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(latent_dim, output_shape)
        layers, width = dense_layers(latent_dim, hidden, activation, dropout=dropout, batch_norm=batch_norm)
        self.layers = nn.Sequential(*layers, nn.Linear(width, prod(output_shape)))

    def decode(self, z: Tensor) -> Tensor:
        return self.layers(z)

    def set_output_bias(self, bias: Tensor) -> None:
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(bias.flatten())
