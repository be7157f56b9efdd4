"""The generative program: z ~ p(z), x ~ p(x | z)."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from vae_pyro.likelihoods import Likelihood
from vae_pyro.models.priors import Encode, Prior
from vae_pyro.nn.base import Decoder


class Model(PyroModule):
    """Prior times likelihood, as a Pyro model.

    ``model(x)`` conditions on x; ``model(size=n)`` draws n data from the prior predictive.

    Args:
        prior: p(z).
        decoder: body of p(x | z).
        likelihood: of x given the decoder's output.
        encode: features -> q(z | features), for a prior that is made of posteriors.

    Attributes:
        lowest_class: least value that y may have: 0, or -1 where an unknown class is inferred.
    """

    lowest_class = 0

    def __init__(self, prior: Prior, decoder: Decoder, likelihood: Likelihood, encode: Encode) -> None:
        super().__init__()
        self.prior, self.decoder, self.likelihood = prior, decoder, likelihood
        # Inside a tuple it is not registered as a submodule: the encoder's parameters belong to the guide.
        self._encode = (encode,)

    def forward(
        self, x: Tensor | None = None, *, size: int | None = None, mask: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        """Run the program.

        Args:
            x: observed data ``(datum, *x_shape)``, or ``None`` to draw them.
            size: number of data to draw where ``x`` is ``None``.
            mask: boolean, shape of ``x``; an element that is false is not observed and adds nothing to the density.
            y: condition of the data, ``(datum,)``; only a conditional model takes it.

        Returns:
            x, shape ``(datum, *x_shape)``, or ``(particle, datum, *x_shape)`` inside an outer plate.

        Raises:
            ValueError: neither ``x`` nor ``size`` is given, or ``y`` is and the model is not conditional.
        """
        self.require(y)
        with self.plate(x, size):
            z = pyro.sample("z", self.prior(self._encode[0]))
            return self.observe(self.output(z, y), x, mask)

    @property
    def standard_normal(self) -> bool:
        """Whether the marginal p(z) of the site that the decoder reads is a standard normal."""
        return self.prior.standard_normal

    def plate(self, x: Tensor | None, size: int | None) -> pyro.plate:
        """The plate of the data.

        Raises:
            ValueError: neither ``x`` nor ``size`` is given.
        """
        if x is None and size is None:
            raise ValueError("model() requires data: call model(x), or model(size=n) to draw from the prior predictive")
        return pyro.plate("data", size if x is None else x.shape[-len(self.likelihood.x_shape) - 1])

    def observe(self, output: Tensor, x: Tensor | None, mask: Tensor | None) -> Tensor:
        """The site ``x``, given the decoder's output."""
        if x is not None and mask is not None:
            x = self.likelihood.filled(x, mask)
        value: Tensor = pyro.sample("x", self.likelihood.observed(output, None if x is None else mask), obs=x)
        return value

    def require(self, y: Tensor | None) -> None:
        """Refuse labels that the model does not take, or lacks, before anything is drawn.

        Raises:
            ValueError: ``y`` is given and the model is not conditional, or the other way round.
        """
        if y is not None:
            raise ValueError("this model is not conditional: y must be None; choose structure 'conditional' or 'm2'")

    def code(self, z: Tensor, y: Tensor | None) -> Tensor:
        """The decoder's input: z, and y where the model is conditional."""
        return z

    def output(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The decoder's output, ``(*batch, *output_shape)``, for z of shape ``(*batch, latent_dim)``.

        Raises:
            ValueError: see `require`.
        """
        self.require(y)
        output: Tensor = self.decoder(self.code(z, y))
        return output

    def draw(self, size: int, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Draws of the prior that `output` takes: z of shape ``(size, latent_dim)``, and y."""
        return self.prior(self._encode[0]).sample((size,)), y
