"""The amortized guide: z ~ q(z | x)."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor

from vae_pyro.features import Features
from vae_pyro.networks import Encoder
from vae_pyro.posteriors import Posterior


class Guide(PyroModule):
    """The encoder as a Pyro guide.

    Args:
        features: what the encoder sees of x (the likelihood says).
        encoder: body of q(z | x).
        posterior: family of q(z | x).
        x_dim: number of event dimensions of x.
    """

    def __init__(self, features: Features, encoder: Encoder, posterior: Posterior, x_dim: int) -> None:
        super().__init__()
        self.features, self.encoder, self.posterior, self.x_dim = features, encoder, posterior, x_dim

    def encode_features(self, features: Tensor) -> TorchDistribution:
        """q(z | features), batch shape ``(datum,)``, for ``(datum, *feature_shape)``."""
        return self.posterior(self.encoder(features))

    def encode(self, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        """q(z | x), batch shape ``(datum,)``; features of unobserved elements are zero.

        Args:
            x: ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
        """
        return self.encode_features(self.features(x, mask))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Run the program.

        Args:
            x: data ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: no guide of this class is conditional yet.

        Returns:
            z, shape ``(datum, latent_dim)``, or ``(particle, datum, latent_dim)`` inside an outer plate.

        Raises:
            ValueError: ``y`` is given.
        """
        if y is not None:
            raise ValueError("this guide is not conditional: y must be None")
        with pyro.plate("data", x.shape[-self.x_dim - 1]):
            return pyro.sample("z", self.encode(x, mask))
