"""The variational autoencoder: a Pyro model and its amortized guide, built from one validated configuration."""

from math import prod
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.core.isolation import isolated
from vae_pyro.core.memory import require_memory
from vae_pyro.data.split import Split
from vae_pyro.densities.moments import merge_moments
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.configured import ConfiguredPair

_MOMENT_DRAWS = 50


class VAE(ConfiguredPair):
    """A Pyro model and guide that belong together.

    ``pyro.infer.SVI(vae.model, vae.guide, ...)``, ``Predictive`` and ``MCMC`` take the two as they are; `vae_pyro.fit`
    trains them.

    Args:
        config: what to build.
        seed: of the initial weights.

    Attributes:
        model: ``model(x=None, *, size=None, mask=None, y=None)``.
        guide: ``guide(x, *, mask=None, y=None)``.
        config: as given.
        num_classes: values that the label y takes; 0 where the programs have none.

    Raises:
        ValueError: a network does not fit the shape of the data.
    """

    initialized: Tensor

    def __init__(self, config: VAEConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.register_buffer("initialized", torch.tensor(False))

    @property
    def decodable(self) -> Self:
        """This VAE: it decodes single latents."""
        return self

    def means_of(self, latents: dict[str, Tensor], distributions: dict[str, TorchDistribution]) -> Tensor | None:
        """`posterior_means` where they are closed; ``None`` where they have draws of their own."""
        if not self.guide.closed_moments:
            return None
        mean = distributions["z"].mean.double()
        return mean[0] if mean.dim() > 2 else mean

    def posterior_means(self, x: Tensor, *, num_draws: int, seed: int, **given: Tensor) -> Tensor:
        """E_q[z | x] in float64, ``(datum, latent)``: exact for a Gaussian posterior, see `posterior_moments`."""
        return self.posterior_moments(x, **given, num_draws=num_draws, seed=seed)[0].double()

    def initialize(self, x: Tensor, mask: Tensor | None = None, *, step: float | None = None) -> None:
        """Start statistics, scales, output bias and pseudo-inputs from training data; only the first call acts.

        Args:
            x: ``(datum, *x_shape)``, a random subset is enough.
            mask: boolean, shape of ``x``, true where observed.
            step: lattice spacing of quantised data, see `vae_pyro.likelihoods.DataSummary`.
        """
        if self.initialized:
            return
        x = self.as_input(x)
        observed = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.to(self.device)
        with torch.no_grad():
            self.model.decoder.set_output_bias(self.model.likelihood.initialize(x, observed, step))
            rows = self.model.prior.initial_rows
            if rows:
                self.model.prior.initialize(self.guide.inputs(x[:rows], observed[:rows]))
            self.initialized.fill_(True)

    def encode(self, x: Any, *, mask: Tensor | None = None, y: Any = None) -> TorchDistribution:
        """q(z | x): batch shape ``(datum,)``, event shape ``(latent_dim,)``.

        Args:
            x: ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: classes ``(datum,)``, of a VAE that has labels; -1 where it infers one.

        Raises:
            ValueError: wrong shape, labels that are missing or not expected, or a structure without such a
                distribution.
        """
        return self.guide.encode(self.as_input(x), *self._given(mask, y))

    def decode(self, z: Any, *, y: Any = None) -> TorchDistribution:
        """p(x | z): batch shape ``(*batch,)``, event shape ``x_shape``, for z of shape ``(*batch, latent_dim)``.

        Args:
            z: latents.
            y: classes that broadcast to ``batch``, of a VAE that has labels.

        Raises:
            ValueError: wrong shape, or labels that are missing or not expected.
        """
        return self.model.likelihood.observed(self.model.output(self._latent(z), self._class(y)))

    def expectation(self, z: Any, *, y: Any = None) -> Tensor:
        """E[x | z] (the most probable class for a categorical likelihood), shape ``(*batch, *x_shape)``."""
        return self._expectation(self._latent(z), self._class(y))

    def _expectation(self, z: Tensor, y: Tensor | None) -> Tensor:
        likelihood = self.model.likelihood
        return likelihood.expectation(likelihood(self.model.output(z, y)))

    @torch.no_grad()
    def posterior_moments(
        self, x: Any, *, mask: Tensor | None = None, y: Any = None, num_draws: int = 1000, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), each ``(datum, latent_dim)``.

        Exact for a Gaussian posterior; for others they are those of ``num_draws`` draws.

        Args:
            x: ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: see `encode`.
            num_draws: draws for each datum, where the moments are not closed.
            seed: of the draws.

        Raises:
            ValueError: wrong shape.
        """
        given = self._given(mask, y)
        with isolated(seed):
            if self.guide.closed_moments:
                posterior = self.guide.encode(self.as_input(x), *given)
                return posterior.mean, posterior.variance.sqrt()
            moments: tuple[Tensor, Tensor] | None = None
            for done in range(0, num_draws, _MOMENT_DRAWS):
                count = min(_MOMENT_DRAWS, num_draws - done)
                moments = merge_moments(moments, done, self.guide.draw(self.as_input(x), *given, (count,))[0].double())
        assert moments is not None
        mean, squares = moments
        return mean.to(self.dtype), (squares / max(num_draws - 1, 1)).sqrt().to(self.dtype)

    @torch.no_grad()
    def reconstruct(
        self, x: Any, *, mask: Tensor | None = None, y: Any = None, num_draws: int = 1, seed: int = 0
    ) -> Tensor:
        """E[x | z] averaged over draws of q(z | x), shape ``(datum, *x_shape)``.

        Args:
            x: ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: see `encode`.
            num_draws: draws of z for each datum.
            seed: of the draws.

        Raises:
            ValueError: wrong shape.
        """
        given = self._given(mask, y)
        with isolated(seed):
            total = sum(self._expectation(*self.guide.draw(self.as_input(x), *given)) for _ in range(num_draws))
        assert isinstance(total, Tensor)
        return total / num_draws

    @torch.no_grad()
    def sample(
        self, size: int, *, y: Any = None, seed: int = 0, like: Split | None = None, expectation: bool = False
    ) -> Tensor:
        """Draw from the prior predictive.

        Args:
            size: number of data.
            y: classes ``(size,)``, which a conditional VAE requires.
            seed: of the draws.
            like: not used; a pair of other programs may require data to draw others.
            expectation: give E[x | z] for each z drawn from the prior, instead of a draw of x.

        Returns:
            Shape ``(size, *x_shape)``.

        Raises:
            ValueError: ``size`` is below 1, or of more data than memory holds.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        numbers = size * (prod(self.config.x_shape) + self.config.latent_dim)
        require_memory(numbers * self.dtype.itemsize, f"{size:,} draws of shape {self.config.x_shape}", "draw fewer")
        with isolated(seed):
            drawn = self.model.draw(size, self._given(None, y)[1])
            if expectation:
                return self._expectation(*drawn)
            return self.model.likelihood.observed(self.model.output(*drawn)).sample()
