"""One latent: z ~ p(z), x ~ p(x | z)."""

from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.structures.base import STRUCTURES, Parts, Structure


@STRUCTURES.register("single", order=1)
class Single(Structure):
    """One latent z and nothing else.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes. arXiv:1312.6114
    """

    single_latent = True

    def build(self, parts: Parts) -> tuple[Model, Guide]:
        guide, prior = parts.latent(Guide)
        return Model(prior, parts.decoder(), parts.likelihood, guide.encode_features), guide
