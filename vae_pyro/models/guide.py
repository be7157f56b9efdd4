"""The amortized guide: z ~ q(z | x)."""

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor

from vae_pyro.models.posteriors import Posterior
from vae_pyro.nn.base import Encoder
from vae_pyro.nn.features import Inputs


class Guide(PyroModule):
    """The encoder as a Pyro guide.

    Args:
        inputs: the encoder's input.
        encoder: body of q(z | x).
        posterior: family of q(z | x).
        x_dim: number of event dimensions of x.
    """

    def __init__(self, inputs: Inputs, encoder: Encoder, posterior: Posterior, x_dim: int) -> None:
        super().__init__()
        # Named first, so that the statistics keep this name in stored weights.
        self.features = inputs.features
        self.inputs, self.encoder, self.posterior, self.x_dim = inputs, encoder, posterior, x_dim

    @property
    def closed_moments(self) -> bool:
        """Whether mean and variance of q(z | x) are known in closed form; `encode` gives it then."""
        return self.posterior.closed_moments

    def encode_features(self, features: Tensor) -> TorchDistribution:
        """q(z | features), batch shape ``(datum,)``, for ``(datum, *feature_shape)``."""
        return self.posterior(self.encoder(features))

    def encode(self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> TorchDistribution:
        """q(z | x), batch shape ``(datum,)``; features of unobserved elements are zero.

        Args:
            x: ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: see `forward`.
        """
        return self.encode_features(self.inputs(x, mask, y))

    @torch.no_grad()
    def draw(
        self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None, shape: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Draws that `Model.output` takes: z of shape ``(*shape, datum, latent_dim)``, and y."""
        return self.encode(x, mask, y).sample(shape), y

    def forward(self, x: Tensor, *, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Run the program.

        Args:
            x: data ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: condition of the data, ``(datum,)``; only a conditional guide takes it.

        Returns:
            z, shape ``(datum, latent_dim)``, or ``(particle, datum, latent_dim)`` inside an outer plate.

        Raises:
            ValueError: ``y`` is given and the guide is not conditional, or the other way round.
        """
        with pyro.plate("data", x.shape[-self.x_dim - 1]):
            z: Tensor = pyro.sample("z", self.encode(x, mask, y))
            return z
