"""What a VAE is made of: one validated configuration."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vae_pyro.core.config import Config, choice_of
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.noise import NOISES
from vae_pyro.models.posteriors import POSTERIORS
from vae_pyro.models.priors import PRIORS
from vae_pyro.models.structures import STRUCTURES
from vae_pyro.nn import DECODERS, ENCODERS


class VAEConfig(Config):
    """What a VAE is made of. Each choice is a name, ``"name:option=value"``, or a mapping with ``name`` and options.

    Attributes:
        x_shape: event shape of one datum.
        latent_dim: dimension of z.
        likelihood: p(x | z), see `vae_pyro.likelihoods`.
        prior: p(z), see `vae_pyro.models.priors`.
        posterior: q(z | x), see `vae_pyro.models.posteriors`.
        encoder: body of the guide, see `vae_pyro.nn`.
        decoder: body of the model; ``None`` mirrors the encoder.
        init: of the weights of encoder, posterior and decoder: ``torch`` keeps torch's own (uniform, of variance
            1 / (3 fan-in)), ``glorot`` is uniform with biases at zero (Glorot & Bengio 2010), ``he`` normal with the
            variance 2 / fan-in of He et al. 2015 (arXiv:1502.01852) and biases at zero.
        structure: how latents and labels hang together, see `vae_pyro.models.structures`.
        noise: what stands between the clean signal, which the likelihood then describes, and x, see
            `vae_pyro.likelihoods.noise`.
        encode_mask: the encoder is told which elements are observed, see `vae_pyro.nn.features.Inputs`.
    """

    x_shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1, max_length=3)]
    latent_dim: Annotated[int, Field(gt=0)]
    likelihood: choice_of(LIKELIHOODS) = "bernoulli"  # type: ignore[valid-type]
    prior: choice_of(PRIORS) = "normal"  # type: ignore[valid-type]
    posterior: choice_of(POSTERIORS) = "mean_field"  # type: ignore[valid-type]
    encoder: choice_of(ENCODERS) = "mlp"  # type: ignore[valid-type]
    decoder: choice_of(DECODERS) | None = None  # type: ignore[valid-type]
    init: Literal["torch", "glorot", "he"] = "torch"
    structure: choice_of(STRUCTURES) = "single"  # type: ignore[valid-type]
    noise: choice_of(NOISES) | None = None  # type: ignore[valid-type]
    encode_mask: bool = False

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed; a decoder that mirrors the encoder goes on doing so."""
        kept = self.model_dump()
        mirrored = type(self)(**{**kept, "decoder": None}).decoder == self.decoder
        if "encoder" in changes and mirrored:
            changes.setdefault("decoder", None)
        return type(self)(**{**kept, **changes})

    @model_validator(mode="before")
    @classmethod
    def _mirror(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("decoder") is None:
            encoder = ENCODERS.resolve(values.get("encoder", "mlp"))
            mirrored = {key: encoder.options[key] for key in encoder.options}
            for layers in ("hidden", "channels"):
                if isinstance(mirrored.get(layers), tuple | list):
                    mirrored[layers] = tuple(reversed(mirrored[layers]))
            return {**values, "decoder": {"name": encoder.name, **mirrored}}
        return values

    @model_validator(mode="after")
    def _combine(self) -> Self:
        posterior = POSTERIORS[self.posterior.name]
        posterior.check(self.latent_dim)
        PRIORS[self.prior.name].check(self.latent_dim, posterior)
        STRUCTURES.build(self.structure).check(self)
        return self
