"""Data given a label: z ~ p(z), x ~ p(x | z, y), with y in the guide as well."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from vae_pyro.densities.measure import Target, Variables
from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.structures.base import STRUCTURES, Parts, Structure, refuse_prior_of_posteriors
from vae_pyro.nn.features import indicators


class ConditionalModel(Model):
    """p(x | z, y): the decoder reads z and the label as indicators.

    Args:
        num_classes: values that y takes.
        parts: as for `vae_pyro.models.model.Model`.
    """

    def __init__(self, num_classes: int, *parts: Any) -> None:
        super().__init__(*parts)
        self.num_classes = num_classes

    def require(self, y: Tensor | None) -> None:
        if y is None:
            raise ValueError(f"this model is conditional: it requires y, classes from 0 to {self.num_classes - 1}")

    def code(self, z: Tensor, y: Tensor | None) -> Tensor:
        assert y is not None
        classes = indicators(y, self.num_classes, z.dtype)
        return torch.cat([z, classes.expand(*z.shape[:-1], self.num_classes)], dim=-1)


@STRUCTURES.register("conditional", order=2)
class Conditional(Structure):
    """Conditional VAE: p(x | y) with the label y given to model and guide; all densities are conditional on it.

    Args:
        num_classes: values that y takes, 0 to ``num_classes - 1``.

    References:
        Sohn, Lee & Yan 2015, Learning structured output representation using deep conditional generative models,
        NeurIPS. The prior of z does not depend on y, as in Kingma et al. 2014 (arXiv:1406.5298), sec. 2.
    """

    def __init__(self, *, num_classes: Annotated[int, Field(ge=2)]) -> None:
        self.num_classes = num_classes

    def target(self, *, data: int, known: int) -> Target:
        return Target(Variables.X_GIVEN_Y)

    def check(self, config: Any) -> None:
        refuse_prior_of_posteriors(config)

    def build(self, parts: Parts) -> tuple[Model, Guide]:
        guide, prior = parts.latent(Guide, self.num_classes)
        decoder = parts.decoder(parts.config.latent_dim + self.num_classes)
        return ConditionalModel(self.num_classes, prior, decoder, parts.likelihood, guide.encode_features), guide
