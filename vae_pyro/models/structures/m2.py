"""Labels that are known for some data: y ~ p(y), z ~ p(z), x ~ p(x | z, y), with y inferred where it is not given."""

from typing import Annotated, Any

import pyro
import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.config import choice_of
from vae_pyro.densities.measure import Target
from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.posteriors import Posterior
from vae_pyro.models.structures.base import STRUCTURES, Parts, Structure, refuse_prior_of_posteriors
from vae_pyro.models.structures.partly_given import PartlyGiven
from vae_pyro.nn import ENCODERS, Encoder
from vae_pyro.nn.features import Inputs, indicators
from vae_pyro.nn.layers import ACTIVATIONS, Activation


class SemiSupervisedModel(Model):
    """p(y) p(z) p(x | z, y), with a uniform p(y).

    Args:
        num_classes: values that y takes.
        parts: as for `vae_pyro.models.model.Model`.
    """

    lowest_class = -1

    def __init__(self, num_classes: int, *parts: Any) -> None:
        super().__init__(*parts)
        self.num_classes = num_classes
        self.register_buffer("class_logits", torch.zeros(num_classes), persistent=False)

    def forward(
        self, x: Tensor | None = None, *, size: int | None = None, mask: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        """Run the program.

        Args:
            x: observed data ``(datum, *x_shape)``, or ``None`` to draw them.
            size: number of data to draw where ``x`` is ``None``.
            mask: boolean, shape of ``x``, true where observed.
            y: classes ``(datum,)``, -1 where unknown; ``None`` for none known. The density of a datum with a class is
                that of both, log p(x, y, z).

        Returns:
            x, shape ``(datum, *x_shape)``, behind the dimensions of outer plates and enumerated classes.

        Raises:
            ValueError: neither ``x`` nor ``size`` is given.
        """
        with self.plate(x, size):
            classes = pyro.sample("y", self.label(y))
            z = pyro.sample("z", self.prior(self._encode[0]))
            return self.observe(self.output(z, classes), x, mask)

    def label(self, y: Tensor | None = None) -> PartlyGiven:
        """p(y), restricted to the given classes where there are such, with their probability as its mass."""
        assert isinstance(self.class_logits, Tensor)
        return PartlyGiven(self.class_logits.to(self._dtype), y, joint=True)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.decoder.parameters()).dtype

    def require(self, y: Tensor | None) -> None:
        """Classes may be given or not."""

    def code(self, z: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError(f"this decoder reads a class: give y, from 0 to {self.num_classes - 1}")
        classes = indicators(y, self.num_classes, z.dtype)
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape)
        return torch.cat([z.expand(*shape, z.shape[-1]), classes.expand(*shape, self.num_classes)], dim=-1)

    def draw(self, size: int, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        classes = self.label(y)
        return self.prior(self._encode[0]).sample((size,)), classes.expand((size,)).sample()


class WithLabel(nn.Module):
    """A hidden layer of ``(h, y)``: the encoder has seen x once, whatever the number of classes that are tried.

    Args:
        width: numbers of h.
        num_classes: values that y takes.
        hidden: width of the layer.
        activation: after it.
    """

    def __init__(self, width: int, num_classes: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.of_x, self.of_y = nn.Linear(width, hidden), nn.Linear(num_classes, hidden, bias=False)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, hidden: Tensor, y: Tensor) -> Tensor:
        """h ``(datum, width)`` and y ``(*batch, datum)``, or 1 in its place -> ``(*batch, datum, hidden)``."""
        joined: Tensor = self.activation(self.of_x(hidden) + self.of_y(indicators(y, self.num_classes, hidden.dtype)))
        return joined


class SemiSupervisedGuide(Guide):
    """q(y | x) q(z | x, y): the first is a classifier, with a body of its own.

    Args:
        inputs: as for `vae_pyro.models.guide.Guide`; likewise ``encoder``, the part of q(z | x, y) before y comes in,
            ``posterior`` and ``x_dim``.
        classifier: body of q(y | x).
        head: from its output to the logits of the classes.
        join: where y comes in.
    """

    def __init__(
        self,
        inputs: Inputs,
        encoder: Encoder,
        posterior: Posterior,
        x_dim: int,
        classifier: Encoder,
        head: nn.Linear,
        join: WithLabel,
    ) -> None:
        super().__init__(inputs, encoder, posterior, x_dim)
        self.classifier, self.head, self.join = classifier, head, join

    @property
    def closed_moments(self) -> bool:
        """Never: q(z | x) is a mixture over classes."""
        return False

    def forward(self, x: Tensor, *, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Run the program.

        Args:
            x: data ``(datum, *x_shape)``.
            mask: boolean, shape of ``x``, true where observed.
            y: classes ``(datum,)``, -1 where unknown; ``None`` for none known.

        Returns:
            z, shape ``(datum, latent_dim)``, behind the dimensions of outer plates and enumerated classes.
        """
        with pyro.plate("data", x.shape[-self.x_dim - 1]):
            features = self.inputs(x, mask)
            classes = pyro.sample("y", self.label(features, y))
            z: Tensor = pyro.sample("z", self.latent(features, classes))
            return z

    def label(self, features: Tensor, y: Tensor | None = None) -> PartlyGiven:
        """q(y | x), certain where a class is given."""
        return PartlyGiven(self.head(self.classifier(features)), y)

    def latent(self, features: Tensor, y: Tensor) -> TorchDistribution:
        """q(z | x, y)."""
        return self.posterior(self.join(self.encoder(features), y))

    def classify(self, x: Tensor, mask: Tensor | None = None) -> dist.Categorical:
        """q(y | x), batch shape ``(datum,)``."""
        return self.label(self.inputs(x, mask))

    def encode_features(self, features: Tensor) -> TorchDistribution:
        raise ValueError("q(z | x) of structure 'm2' is a mixture over classes; give y, or use its draws")

    def encode(self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> TorchDistribution:
        """q(z | x, y), batch shape ``(datum,)``.

        Raises:
            ValueError: the class of a datum is not given: q(z | x) is a mixture, of which `draw` draws.
        """
        if y is None or bool((y < 0).any()):
            raise ValueError("q(z | x) of structure 'm2' is a mixture over classes; give y for all data, or use draws")
        return self.latent(self.inputs(x, mask), y)

    @torch.no_grad()
    def draw(
        self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None, shape: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor | None]:
        features = self.inputs(x, mask)
        classes = self.label(features, y).sample(shape)
        return self.latent(features, classes).sample(), classes


@STRUCTURES.register("m2", order=5)
class SemiSupervised(Structure):
    """Semi-supervised VAE (M2): a class y for each datum, known for some; the guide is a classifier and an encoder.

    Both programs take ``y`` with -1 where a class is unknown, and any mixture of the two in a batch. Objective ``m2``
    sums over unknown classes; every other objective, and `vae_pyro.evaluate`, draws them from the classifier. The
    networks: q(y | x) is an encoder's body and a linear layer; q(z | x, y) is a second body for x alone, then one
    hidden layer that y comes into (the paper's takes y into the first), so that ten classes do not cost ten passes
    over x; the decoder reads z and y.

    Args:
        num_classes: values that y takes, 0 to ``num_classes - 1``; all are equally probable beforehand.
        hidden: width of the layer that y comes into.
        activation: after it.
        classifier: body of q(y | x), see `vae_pyro.nn`; as the encoder if not given.

    References:
        Kingma, Rezende, Mohamed & Welling 2014, Semi-supervised learning with deep generative models, sec. 2 (M2),
        eqs. 2 and 4. arXiv:1406.5298
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=2)],
        hidden: Annotated[int, Field(ge=1)] = 256,
        activation: Activation = "relu",
        classifier: choice_of(ENCODERS) | None = None,  # type: ignore[valid-type]
    ) -> None:
        self.num_classes, self.hidden, self.activation = num_classes, hidden, activation
        self.classifier = None if classifier is None else ENCODERS.resolve(classifier)

    def target(self, *, data: int, known: int) -> Target:
        return Target.with_classes(data=data, known=known)

    def check(self, config: Any) -> None:
        refuse_prior_of_posteriors(config)

    def build(self, parts: Parts) -> tuple[Model, Guide]:
        inputs = parts.inputs()
        if self.classifier is None:
            classifier = parts.encoder()
        else:
            classifier = parts.initialized(ENCODERS.build(self.classifier, inputs.feature_shape))
        head = parts.initialized(nn.Linear(classifier.width, self.num_classes))
        encoder = parts.encoder()
        join = parts.initialized(WithLabel(encoder.width, self.num_classes, self.hidden, self.activation))
        posterior = parts.posterior(self.hidden)
        guide = SemiSupervisedGuide(inputs, encoder, posterior, parts.x_dim, classifier, head, join)
        decoder = parts.decoder(parts.config.latent_dim + self.num_classes)
        model = SemiSupervisedModel(self.num_classes, parts.prior(), decoder, parts.likelihood, guide.encode_features)
        return model, guide
