"""Several layers of latents: z_L ~ p(z_L), z_l ~ p(z_l | z_(l+1)), x ~ p(x | z). The guides have files of their own.

The site of the layer that the decoder reads is ``z``; those above it are ``z2``, ``z3`` and so on.
"""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.posteriors.base import DiagonalNormal
from vae_pyro.models.posteriors.mean_field import MeanField
from vae_pyro.models.priors import PRIORS
from vae_pyro.models.structures.base import Parts, Structure
from vae_pyro.nn.layers import DenseActivation, Width, Widths, dense_layers

type Moments = tuple[Tensor, Tensor]


def layer_names(count: int) -> tuple[str, ...]:
    """Names of the latent sites, the one that the decoder reads first.

    >>> layer_names(3)
    ('z', 'z2', 'z3')
    """
    return ("z", *(f"z{number}" for number in range(2, count + 1)))


class GaussianLayer(nn.Module):
    """A perceptron that gives a diagonal Gaussian, ``(*batch, inputs)`` -> location and scale ``(*batch, outputs)``.

    Args:
        inputs: width of its input.
        hidden: widths of the hidden layers, from the input on.
        outputs: dimension of the Gaussian.
        activation: see `vae_pyro.nn.mlp.MLPEncoder`.
        min_scale: which the scale does not fall below.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], outputs: int, activation: str, *, min_scale: float = 0.0
    ) -> None:
        super().__init__()
        layers, width = dense_layers(inputs, hidden, activation)
        self.hidden, self.min_scale = nn.Sequential(*layers), min_scale
        self.normal = DiagonalNormal(width, outputs)

    def forward(self, values: Tensor) -> Moments:
        loc, scale = self.normal(self.hidden(values))
        return loc, scale + self.min_scale if self.min_scale else scale


def normal(moments: Moments) -> TorchDistribution:
    """A diagonal Gaussian of location and scale, ``(*batch, dimension)`` each."""
    return dist.Normal(*moments).to_event(1)


class LayeredModel(Model):
    """z_L ~ p(z_L), then each layer a diagonal Gaussian given the one above it, then x ~ p(x | z).

    Args:
        layers: of p(z_l | z_(l+1)), that of the lowest first.
        parts: as for `vae_pyro.models.model.Model`; the prior is that of the topmost layer.
    """

    def __init__(self, layers: Sequence[GaussianLayer], *parts: Any) -> None:
        super().__init__(*parts)
        self.layers = nn.ModuleList(layers)
        self.names = layer_names(len(layers) + 1)

    @property
    def standard_normal(self) -> bool:
        return False  # z is a Gaussian given the layer above

    def forward(
        self, x: Tensor | None = None, *, size: int | None = None, mask: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        self.require(y)
        with self.plate(x, size):
            z = pyro.sample(self.names[-1], self.prior(self._encode[0]))
            for name, layer in reversed(list(zip(self.names, self.layers, strict=False))):
                z = pyro.sample(name, normal(layer(z)))
            return self.observe(self.output(z, y), x, mask)

    @torch.no_grad()
    def draw(self, size: int, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        z = self.prior(self._encode[0]).sample((size,))
        for layer in reversed(self.layers):
            z = normal(layer(z)).sample()
        return z, y


class Layered(Structure):
    """Base of the structures of several layers.

    Args:
        latent_dims: dimensions of the layers above z, upwards; that of z is the configuration's ``latent_dim``.
        hidden: widths of the networks between two layers, from the lower to the upper one (generative networks have
            them the other way round): a list for all, or one for each pair of layers.
        activation: of their hidden layers.

    Raises:
        ValueError: there are not as many lists of widths as layers above z.
    """

    # Of p(z_l | z_(l+1)); the unit of z_l is free, so that a bound forbids nothing.
    min_scale: ClassVar[float] = 0.0

    def __init__(
        self,
        *,
        latent_dims: Annotated[tuple[Width, ...], Field(min_length=1)],
        hidden: Widths | tuple[Widths, ...] = (100, 100),
        activation: DenseActivation = "relu",
    ) -> None:
        each = [tuple(entry) for entry in hidden if not isinstance(entry, int)]
        if each and len(each) != len(latent_dims):
            raise ValueError(
                f"hidden={[list(entry) for entry in each]} requires a list of widths for each of the "
                f"{len(latent_dims)} layers of latent_dims={list(latent_dims)}, or one list of numbers for all"
            )
        self.latent_dims, self.activation = tuple(latent_dims), activation
        self.hidden = each or [tuple(entry for entry in hidden if isinstance(entry, int))] * len(latent_dims)

    def dims(self, config: Any) -> tuple[int, ...]:
        """Dimensions of all layers, that of z first."""
        return (config.latent_dim, *self.latent_dims)

    def check(self, config: Any) -> None:
        PRIORS[config.prior.name].check(self.latent_dims[-1], MeanField)

    def build(self, parts: Parts) -> tuple[Model, Guide]:
        inputs = parts.inputs()
        encoder = parts.encoder()
        posterior = parts.posterior(encoder.width)
        upward = self.upward(parts, encoder.width)
        prior = parts.prior(self.latent_dims[-1])
        generative = [
            parts.initialized(GaussianLayer(upper, hidden[::-1], lower, self.activation, min_scale=self.min_scale))
            for (lower, upper), hidden in zip(pairwise(self.dims(parts.config)), self.hidden, strict=True)
        ]
        guide = self.guide(upward, nn.ModuleList(generative), inputs, encoder, posterior, parts.x_dim)
        return LayeredModel(generative, prior, parts.decoder(), parts.likelihood, guide.encode_features), guide

    @abstractmethod
    def upward(self, parts: Parts, width: int) -> list[nn.Module]:
        """Networks of the guide for the layers above z, on an encoder's output of so many numbers."""

    @abstractmethod
    def guide(self, upward: Any, generative: nn.ModuleList, *parts: Any) -> Guide:
        """The guide, of its networks and the model's."""
