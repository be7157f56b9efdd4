"""The generative program: z ~ p(z), x ~ p(x | z)."""

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor

from vae_pyro.likelihoods import Likelihood
from vae_pyro.networks import Decoder
from vae_pyro.priors import Encode, Prior


class Model(PyroModule):
    """Prior times likelihood, as a Pyro model.

    ``model(x)`` conditions on x; ``model(size=n)`` draws n data from the prior predictive.

    Args:
        prior: p(z).
        decoder: body of p(x | z).
        likelihood: what the decoder's output means.
        encode: features -> q(z | features), for a prior that is made of posteriors.
    """

    def __init__(self, prior: Prior, decoder: Decoder, likelihood: Likelihood, encode: Encode) -> None:
        super().__init__()
        self.prior, self.decoder, self.likelihood = prior, decoder, likelihood
        # In a tuple, torch does not see it: the encoder's parameters belong to the guide.
        self._encode = (encode,)

    def forward(
        self,
        x: Tensor | None = None,
        *,
        size: int | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """Run the program.

        Args:
            x: observed data ``(datum, *x_shape)``, or ``None`` to draw them.
            size: number of data to draw where ``x`` is ``None``.
            mask: boolean, shape of ``x``; an element that is false is not observed and adds nothing to the density.
            y: no model of this class is conditional yet.

        Returns:
            x, shape ``(datum, *x_shape)``, or ``(particle, datum, *x_shape)`` inside an outer plate.

        Raises:
            ValueError: neither ``x`` nor ``size`` is given, or ``y`` is.
        """
        if y is not None:
            raise ValueError("this model is not conditional: y must be None")
        if x is None and size is None:
            raise ValueError("model() wants data: call model(x), or model(size=n) for draws from the prior predictive")
        event_dim = len(self.likelihood.x_shape)
        with pyro.plate("data", size if x is None else x.shape[-event_dim - 1]):
            z = pyro.sample("z", self.prior(self._encode[0]))
            elements = self.likelihood(self.decoder(z))
            if x is not None and mask is not None:
                # A masked value is replaced, not just weighted by zero: 0 * NaN would poison the gradient.
                x = torch.where(mask, x, torch.full_like(x, self.likelihood.fill))
                elements = elements.mask(mask)
            return pyro.sample("x", elements.to_event(event_dim), obs=x)
