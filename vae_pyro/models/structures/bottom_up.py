"""Layers of latents with a bottom-up guide: q(z | x), then each layer given the one below it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro
from torch import Tensor, nn

from vae_pyro.models.guide import Guide
from vae_pyro.models.priors import PRIORS
from vae_pyro.models.structures.base import STRUCTURES, Parts
from vae_pyro.models.structures.layered import GaussianLayer, Layered, layer_names, normal


class BottomUpGuide(Guide):
    """z ~ q(z | x), then each layer a diagonal Gaussian given the one *below* it.

    Args:
        layers: of q(z_(l+1) | z_l), that of the second layer first.
        parts: as for `vae_pyro.models.guide.Guide`.
    """

    def __init__(self, layers: Sequence[GaussianLayer], *parts: Any) -> None:
        super().__init__(*parts)
        self.upward = nn.ModuleList(layers)
        self.names = layer_names(len(layers) + 1)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-self.x_dim - 1]):
            z: Tensor = pyro.sample(self.names[0], self.encode(x, mask, y))
            below = z
            for name, layer in zip(self.names[1:], self.upward, strict=True):
                below = pyro.sample(name, normal(layer(below)))
            return z


@STRUCTURES.register("bottom_up", order=3)
class BottomUp(Layered):
    """Layers of latents with a bottom-up guide: q(z | x) q(z2 | z) ..., the networks between layers mirrored.

    Args:
        latent_dims: dimensions of the layers above z, upwards.
        hidden: widths between two layers, upwards: a list for all, or one for each.
        activation: of their hidden layers.

    References:
        Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders, sec. 2 and 5. arXiv:1509.00519
    """

    def check(self, config: Any) -> None:
        super().check(config)
        if PRIORS[config.prior.name].made_of_posteriors:
            raise ValueError(
                f"prior {config.prior.name!r} is made of posteriors of the topmost layer given x, which structure "
                "'bottom_up' has only through the draws of the layers below; choose structure 'ladder' or prior "
                "'mixture'"
            )

    def upward(self, parts: Parts, width: int) -> list[nn.Module]:
        return [
            parts.initialized(GaussianLayer(lower, hidden, upper, self.activation))
            for (lower, upper), hidden in zip(pairwise(self.dims(parts.config)), self.hidden, strict=True)
        ]

    def guide(self, upward: Any, generative: nn.ModuleList, *parts: Any) -> Guide:
        return BottomUpGuide(upward, *parts)
