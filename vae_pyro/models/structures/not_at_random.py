"""Data missing not at random: the mask is data too, and depends on the values that are missing."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.densities.measure import Target, Variables
from vae_pyro.likelihoods import LIKELIHOODS, Likelihood
from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.structures.base import STRUCTURES, Parts, Structure
from vae_pyro.nn.layers import Widths, dense_layers

type KnownSign = Literal["none", "high", "low"]


class SelfMasking(nn.Module):
    """Whether an element is missing depends on its own value: ``logit P(missing) = weight f + bias``.

    Args:
        x_shape: event shape of x; each element has a weight and a bias of its own.
        known_sign: ``high`` keeps weights positive, so that it is high values that go missing, ``low`` negative.
    """

    def __init__(self, x_shape: Sequence[int], known_sign: KnownSign) -> None:
        super().__init__()
        self.known_sign = known_sign
        self.raw_weight = nn.Parameter(torch.zeros(tuple(x_shape)))
        self.bias = nn.Parameter(torch.zeros(tuple(x_shape)))

    @property
    def weight(self) -> Tensor:
        """Change of the logit of being missing per unit of the encoder's feature, shape ``x_shape``."""
        if self.known_sign == "none":
            return self.raw_weight
        return softplus(self.raw_weight) * (1 if self.known_sign == "high" else -1)

    def forward(self, features: Tensor) -> Tensor:
        return self.weight * features + self.bias


class Dense(nn.Module):
    """Whether an element is missing depends on all values, through one linear layer or a perceptron.

    Args:
        x_shape: event shape of x.
        hidden: widths of the hidden layers; none for a linear mechanism.
    """

    def __init__(self, x_shape: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)
        layers, width = dense_layers(prod(x_shape), hidden, "tanh")
        last = nn.Linear(width, prod(x_shape))
        self.layers = nn.Sequential(*layers, last)
        with torch.no_grad():
            last.weight.zero_()  # nothing depends on anything at first
            last.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        flat: Tensor = self.layers(features.flatten(-len(self.x_shape)))
        return flat.reshape(features.shape)


class MissingModel(Model):
    """p(z) p(x | z) p(mask | x): with a mask, unobserved elements are the latent site ``x_missing``.

    The mask is the observed site ``mask``; without one, everything given is observed, and the density is that of
    nothing being missing. Data that are drawn have a mask drawn with them.

    Args:
        mechanism: features of whole x -> logits of being missing, each ``(*batch, *x_shape)``.
        parts: as for `vae_pyro.models.model.Model`.
    """

    def __init__(self, mechanism: nn.Module, *parts: Any) -> None:
        super().__init__(*parts)
        self.mechanism = mechanism

    def forward(
        self, x: Tensor | None = None, *, size: int | None = None, mask: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        self.require(y)
        with self.plate(x, size):
            z = pyro.sample("z", self.prior(self._encode[0]))
            output = self.output(z, y)
            value = self.observe(output, x, mask)
            if x is not None and mask is not None:
                value = torch.where(mask, value, pyro.sample("x_missing", unobserved(self.likelihood, output, mask)))
            seen = mask
            if x is not None and mask is None:
                seen = torch.ones_like(value, dtype=torch.bool)
            logits = -self.mechanism(self.likelihood.features(value))
            pyro.sample(
                "mask",
                dist.Bernoulli(logits=logits).to_event(len(self.likelihood.x_shape)),
                obs=None if seen is None else seen.to(value.dtype),
            )
        return value


class MissingGuide(Guide):
    """q(z | x observed, mask), and the model's own p(x missing | z), whose density cancels in every weight."""

    def attach(self, model: Model) -> None:
        """The model that unobserved elements are drawn from."""
        # Inside a tuple it is not registered as a submodule: its parameters stay the model's.
        self._model = (model,)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-self.x_dim - 1]):
            z: Tensor = pyro.sample("z", self.encode(x, mask, y))
            if mask is not None:
                model = self._model[0]
                output = model.output(z, y)
                if not z.requires_grad:
                    # Draws that are constants leave the gradient of log q to the guide's parameters, and these are the
                    # model's. Counted in both programs, they would be fitted to the draws twice.
                    output = output.detach()
                pyro.sample("x_missing", unobserved(model.likelihood, output, mask))
            return z


def unobserved(likelihood: Likelihood, output: Tensor, mask: Tensor) -> Any:
    """p(x | z) of the elements where ``mask`` is false; the others add nothing."""
    return likelihood.observed(output, ~mask)


@STRUCTURES.register("not_at_random", order=6)
class NotAtRandom(Structure):
    """not-MIWAE: z ~ p(z), x ~ p(x | z), mask ~ p(mask | x), for data missing not at random.

    With any objective, densities are those of the observed elements and of the mask together, log p(x observed, mask);
    ``iwae`` gives the bound of the paper. The reconstruction holds log p(mask | x) as well; ``free_bits`` adds its
    floor for unobserved elements too, which is a constant. An imputation is the mean of the draws of the site
    ``x_missing`` under their importance weights; draws of p(x | z) alone would ignore the mask. The mechanism
    reads the encoder's features of whole x (standardised values, where the likelihood is Gaussian).

    Mechanisms other than self-masking are limited by the data: from masked data, p(mask | x) is not identified without
    assumptions on its form.

    Args:
        mechanism: ``self_masking`` (logistic in each element's own value), ``linear`` (logistic in all values), or
            ``nonlinear`` (a perceptron of all values).
        known_sign: of self-masking, where it is known: ``high`` says that it is high values that go missing, ``low``
            that it is low ones; ``none`` learns it.
        hidden: widths of the hidden layers of ``nonlinear``, with tanh.

    References:
        Ipsen, Mattei & Frellsen 2021, not-MIWAE: deep generative modelling with missing not at random data, eqs. 5 to 8
        and sec. 3. arXiv:2006.12871
    """

    def __init__(
        self,
        *,
        mechanism: Literal["self_masking", "linear", "nonlinear"] = "self_masking",
        known_sign: KnownSign = "none",
        hidden: Widths = (128,),
    ) -> None:
        self.mechanism, self.known_sign, self.hidden = mechanism, known_sign, hidden

    def target(self, *, data: int, known: int) -> Target:
        return Target(Variables.X_AND_MASK)  # without a mask as well: the density is then of nothing being missing

    def check(self, config: Any) -> None:
        if self.known_sign != "none" and self.mechanism != "self_masking":
            raise ValueError(
                f"known_sign={self.known_sign!r} belongs to mechanism 'self_masking', got {self.mechanism!r}"
            )
        if not LIKELIHOODS[config.likelihood.name].reparameterized:
            raise _no_draws(config.likelihood.name)

    def build(self, parts: Parts) -> tuple[Model, Guide]:
        likelihood, shape = parts.likelihood, tuple(parts.config.x_shape)
        with torch.no_grad():
            if not likelihood.observed(torch.zeros(1, *likelihood.output_shape)).has_rsample:
                raise _no_draws(parts.config.likelihood.name)
        if likelihood.features.feature_shape != shape:
            raise ValueError(
                f"structure 'not_at_random' requires an encoder that reads one number for each element; that of "
                f"likelihood {parts.config.likelihood.name!r} reads {likelihood.features.feature_shape} for x of "
                f"{shape}"
            )
        guide, prior = parts.latent(MissingGuide)
        decoder = parts.decoder()
        mechanism = (
            SelfMasking(shape, self.known_sign)
            if self.mechanism == "self_masking"
            else Dense(shape, self.hidden if self.mechanism == "nonlinear" else ())
        )
        model = MissingModel(mechanism, prior, decoder, likelihood, guide.encode_features)
        guide.attach(model)
        return model, guide


def _no_draws(name: str) -> ValueError:
    fitting = [other for other in LIKELIHOODS if LIKELIHOODS[other].reparameterized]
    return ValueError(
        f"structure 'not_at_random' differentiates through draws of unobserved elements, and likelihood {name!r} has "
        f"none that can be; choose {', '.join(map(repr, fitting))}"
    )
