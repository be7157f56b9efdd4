"""Layers of latents with a top-down guide: the model's own layers, corrected by a deterministic upward pass."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.models.guide import Guide
from vae_pyro.models.posteriors import POSTERIORS
from vae_pyro.models.posteriors.base import DiagonalNormal
from vae_pyro.models.posteriors.mean_field import MeanField
from vae_pyro.models.structures.base import STRUCTURES, Parts
from vae_pyro.models.structures.layered import Layered, Moments, layer_names, normal
from vae_pyro.nn.base import Encoder
from vae_pyro.nn.features import Inputs
from vae_pyro.nn.layers import dense_layers


class Rung(nn.Module):
    """One step of the deterministic upward pass: d_(l-1) -> d_l, and the Gaussian of z_l that it suggests.

    Args:
        inputs: width of d_(l-1).
        hidden: widths of the hidden layers, the last that of d_l; none leaves d_l = d_(l-1).
        outputs: dimension of z_l.
        activation: see `vae_pyro.nn.mlp.MLPEncoder`.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: str) -> None:
        super().__init__()
        layers, self.width = dense_layers(inputs, hidden, activation)
        self.hidden = nn.Sequential(*layers)
        self.normal = DiagonalNormal(self.width, outputs)

    def forward(self, below: Tensor) -> tuple[Tensor, Moments]:
        here = self.hidden(below)
        return here, self.normal(here)


def precision_weighted(first: Moments, second: Moments) -> Moments:
    """Location and scale of the product of two Gaussians: precisions add, locations are weighted by them.

    No square of a scale is formed, which would overflow in float32 where the scale itself does not.
    """
    one, other = -2 * first[1].log(), -2 * second[1].log()  # log precisions
    share = torch.sigmoid(one - other)
    return share * first[0] + (1 - share) * second[0], torch.exp(-0.5 * torch.logaddexp(one, other))


class LadderGuide(Guide):
    """z_L ~ q(z_L | x), then down: each layer is the generative Gaussian times that of a deterministic upward pass.

    The Gaussians p(z_l | z_(l+1)) are the model's own; the guide shares them, and their parameters belong to the model.

    Args:
        rungs: of the layers above the lowest, whose Gaussian is ``posterior`` on the encoder's output.
        generative: the model's layers, that of p(z | z2) first.
        inputs: as for `vae_pyro.models.guide.Guide`.
        encoder: body of d_1.
        posterior: a diagonal Gaussian.
        x_dim: number of event dimensions of x.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        generative: nn.ModuleList,
        inputs: Inputs,
        encoder: Encoder,
        posterior: MeanField,
        x_dim: int,
    ) -> None:
        super().__init__(inputs, encoder, posterior, x_dim)
        self.rungs = nn.ModuleList(rungs)
        self.names = layer_names(len(rungs) + 1)
        # Inside a tuple they are not registered as submodules.
        self._generative = (generative,)

    @property
    def closed_moments(self) -> bool:
        return False

    def encode_features(self, features: Tensor) -> TorchDistribution:
        """q(z_L | features) of the topmost layer, batch shape ``(datum,)``, which a prior made of posteriors takes."""
        return normal(self.climb(features)[-1])

    def encode(self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> TorchDistribution:
        """None: q(z | x) is a continuous mixture over the layers above.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "structure 'ladder' has no q(z | x) in closed form: it is a mixture over the layers above z; take draws "
            "(guide.draw, posterior_moments), or structure 'bottom_up'"
        )

    def climb(self, features: Tensor) -> list[Moments]:
        """Location and scale of each layer in the upward pass, the lowest first, ``(*batch, dimension)`` each."""
        here = self.encoder(features)
        assert isinstance(self.posterior, MeanField)
        found = [self.posterior.normal(here)]
        for rung in self.rungs:
            here, moments = rung(here)
            found.append(moments)
        return found

    def descend(self, upward: Moments, layer: int, above: Tensor) -> TorchDistribution:
        """q(z_l | z_(l+1), x) of a layer, counted from 0, given a draw of the one above."""
        return normal(precision_weighted(upward, self._generative[0][layer](above)))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-self.x_dim - 1]):
            upward = self.climb(self.inputs(x, mask, y))
            z: Tensor = pyro.sample(self.names[-1], normal(upward[-1]))
            for layer in range(len(self.rungs) - 1, -1, -1):
                z = pyro.sample(self.names[layer], self.descend(upward[layer], layer, z))
            return z

    @torch.no_grad()
    def draw(
        self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None, shape: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor | None]:
        upward = self.climb(self.inputs(x, mask, y))
        z = normal(upward[-1]).sample(shape)
        for layer in range(len(self.rungs) - 1, -1, -1):
            z = self.descend(upward[layer], layer, z).sample()
        return z, y


@STRUCTURES.register("ladder", order=4)
class Ladder(Layered):
    """Layers of latents with a top-down guide: a deterministic upward pass and the model's own Gaussians.

    ``q(z_l | z_(l+1), x)`` is the product, normalised, of ``p(z_l | z_(l+1))`` and a Gaussian of the upward pass;
    the topmost layer has the latter alone. Scales are exponentials of network outputs, where the paper has a softplus
    of the variance, and there is no batch normalisation: the density of a datum must not depend on its batch. Fit it
    with ``kl_warmup``, as the paper does: otherwise z soon follows ``p(z | z2)`` alone, since that costs nothing. The
    scale of a latent that learns from noise alone only shrinks, until float32 cannot separate a draw from its mean;
    therefore the scales of ``p(z_l | z_(l+1))`` have the lower bound 1e-3.

    Args:
        latent_dims: dimensions of the layers above z, upwards.
        hidden: widths between two layers, upwards: a list for all, or one for each.
        activation: of their hidden layers.

    References:
        Sonderby, Raiko, Maaloe, Sonderby & Winther 2016, Ladder variational autoencoders. arXiv:1602.02282
    """

    min_scale = 1e-3

    def check(self, config: Any) -> None:
        super().check(config)
        if not issubclass(POSTERIORS[config.posterior.name], MeanField):
            raise ValueError(
                f"structure 'ladder' multiplies diagonal Gaussians, and posterior {config.posterior.name!r} is none; "
                "choose 'mean_field', or structure 'bottom_up'"
            )

    def upward(self, parts: Parts, width: int) -> list[nn.Module]:
        rungs: list[nn.Module] = []
        for hidden, outputs in zip(self.hidden, self.latent_dims, strict=True):
            rung = parts.initialized(Rung(width, hidden, outputs, self.activation))
            rungs.append(rung)
            width = rung.width
        return rungs

    def guide(self, upward: Any, generative: nn.ModuleList, *parts: Any) -> Guide:
        return LadderGuide(upward, generative, *parts)
