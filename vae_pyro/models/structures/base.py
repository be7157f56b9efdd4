"""Base class of the structures: how the two programs of a VAE are made of the parts that a configuration names.

A variant is a file beside this one that registers a class in `STRUCTURES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from vae_pyro.core.registry import ClassRegistry
from vae_pyro.densities.measure import Target, Variables
from vae_pyro.likelihoods import Likelihood
from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.posteriors import POSTERIORS, Posterior
from vae_pyro.models.priors import PRIORS, Prior
from vae_pyro.nn import DECODERS, ENCODERS, Decoder, Encoder
from vae_pyro.nn.features import Features, Inputs
from vae_pyro.nn.layers import initialize_weights


class Parts:
    """The parts that a configuration names, made on request; weights are drawn in the order of the calls.

    Args:
        config: a `vae_pyro.VAEConfig`.
        likelihood: p(x | z).
    """

    def __init__(self, config: Any, likelihood: Likelihood) -> None:
        self.config, self.likelihood = config, likelihood
        self._bodies: list[nn.Module] = []
        self._inputs: Inputs | None = None

    @property
    def features(self) -> Features:
        """Features of x that the encoder reads."""
        return self.likelihood.features

    @property
    def x_dim(self) -> int:
        """Number of event dimensions of x."""
        return len(self.config.x_shape)

    def inputs(self, num_classes: int = 0) -> Inputs:
        """The encoder's input; the last one made is that of the parts that follow."""
        self._inputs = Inputs(self.features, encode_mask=self.config.encode_mask, num_classes=num_classes)
        return self._inputs

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Event shape of the encoder's inputs."""
        return (self._inputs or self.inputs()).feature_shape

    def initialized[M: nn.Module](self, body: M) -> M:
        """A body whose weights start as the configuration says, once all are made."""
        self._bodies.append(body)
        return body

    def encoder(self, feature_shape: Sequence[int] | None = None) -> Encoder:
        """The encoder's body."""
        return self.initialized(ENCODERS.build(self.config.encoder, tuple(feature_shape or self.feature_shape)))

    def posterior(self, width: int, latent_dim: int | None = None) -> Posterior:
        """q(z | x) on an encoder's output of so many numbers."""
        return self.initialized(POSTERIORS.build(self.config.posterior, width, latent_dim or self.config.latent_dim))

    def prior(self, latent_dim: int | None = None, feature_shape: Sequence[int] | None = None) -> Prior:
        """p(z)."""
        shape = tuple(feature_shape or self.feature_shape)
        return PRIORS.build(self.config.prior, latent_dim or self.config.latent_dim, shape)

    def latent[G: Guide](self, kind: type[G], num_classes: int = 0) -> tuple[G, Prior]:
        """The guide of a single latent z, whose encoder reads a class where there are some, and the prior of z."""
        inputs = self.inputs(num_classes)
        encoder = self.encoder()
        posterior, prior = self.posterior(encoder.width), self.prior()
        return kind(inputs, encoder, posterior, self.x_dim), prior

    def decoder(self, latent_dim: int | None = None) -> Decoder:
        """The decoder's body, reading so many numbers."""
        shape = self.likelihood.output_shape
        return self.initialized(DECODERS.build(self.config.decoder, latent_dim or self.config.latent_dim, shape))

    def finish(self) -> None:
        """Start the weights of all bodies."""
        for body in self._bodies:
            initialize_weights(body, self.config.init)


class Structure(ABC):
    """The graph of latents and labels in model and guide; its keyword-only parameters are its options.

    Attributes:
        num_classes: values that y takes; 0 where the programs have no y.
        single_latent: whether z is the only latent site and both programs are of x alone.
    """

    num_classes: int = 0
    single_latent: ClassVar[bool] = False

    def target(self, *, data: int, known: int) -> Target:
        """The target of the log densities of a set of data.

        Args:
            data: number of data.
            known: for how many of them y is given.
        """
        return Target(Variables.X)

    def check(self, config: Any) -> None:  # noqa: B027 (most structures take everything)
        """Refuse a configuration that cannot have this structure.

        Raises:
            ValueError: the message names the choice and the way out.
        """

    @abstractmethod
    def build(self, parts: Parts) -> tuple[Model, Guide]:
        """Model and guide.

        Raises:
            ValueError: a part does not fit.
        """


STRUCTURES: ClassRegistry[Structure] = ClassRegistry("structure")


def refuse_prior_of_posteriors(config: Any) -> None:
    """Refuse a prior that is made of posteriors, where these are conditional on a label.

    Args:
        config: a `vae_pyro.VAEConfig`.

    Raises:
        ValueError: the message names the prior.
    """
    if PRIORS[config.prior.name].made_of_posteriors:
        raise ValueError(
            f"prior {config.prior.name!r} is made of posteriors, which here require a label; choose another prior"
        )
