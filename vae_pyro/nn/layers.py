"""Layers, activations and initial weights that bodies share."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

type Activation = Literal["relu", "leaky_relu", "tanh", "elu", "gelu", "silu", "softplus"]
type DenseActivation = Activation | Literal["gated"]
type Width = Annotated[int, Field(gt=0)]
# Networks of more layers are slips of the keyboard.
type Widths = Annotated[tuple[Width, ...], Field(max_length=1000)]
type Channels = Annotated[tuple[Width, ...], Field(min_length=1)]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


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
