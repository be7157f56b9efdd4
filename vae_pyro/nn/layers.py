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
type Share = Annotated[float, Field(ge=0, lt=1)]
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

    def __init__(self, inputs: int, outputs: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.both, self.norm = nn.Linear(inputs, 2 * outputs), norm

    def forward(self, x: Tensor) -> Tensor:
        both = self.both(x)
        return nn.functional.glu(both if self.norm is None else self.norm(both), dim=-1)


class BatchNorm(nn.Module):
    """Batch normalisation of ``(n, width)``; a single row is normalised by the running statistics.

    A batch of one row has no variance. It occurs as the last of an epoch, and is then no reason to stop.

    References:
        Ioffe & Szegedy 2015, Batch normalization. arXiv:1502.03167
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:
            norm = self.norm
            return nn.functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        normalized: Tensor = self.norm(x)
        return normalized


def dense_layers(
    inputs: int, hidden: Sequence[int], activation: str, *, dropout: float = 0.0, batch_norm: bool = False
) -> tuple[list[nn.Module], int]:
    """Hidden layers of a perceptron and the width of the last.

    Args:
        inputs: width of the input.
        hidden: widths, first to last.
        activation: a key of `ACTIVATIONS`, or ``gated``.
        dropout: probability with which each unit of a hidden layer is set to 0 in training mode; 0 for none.
        batch_norm: normalise each hidden layer over the batch before its activation.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        norm = [BatchNorm(2 * width if activation == "gated" else width)] if batch_norm else []
        if activation == "gated":
            layers.append(Gated(inputs, width, *norm))
        else:
            layers += [nn.Linear(inputs, width), *norm, ACTIVATIONS[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return layers, inputs
