"""Sites of a guide or a prior as Gaussians or mixtures of them, where their parameters are known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MixtureMarginals:
    """A prior site that is a mixture of Gaussians, by its marginals.

    Attributes:
        log_weight: shape ``(component,)``.
        loc: shape ``(component, latent)``.
        scale: same shape.
        independent: one component with independent latents.
    """

    log_weight: Array
    loc: Array
    scale: Array
    independent: bool


@dataclass(frozen=True)
class SiteGaussian:
    loc: Tensor
    scale: Tensor
    scale_tril: Tensor | None


def gaussian_of(posterior: TorchDistribution, value: Tensor) -> SiteGaussian | None:
    """A site of the guide as a Gaussian that depends on x alone, a row a datum."""
    known = _parameters(posterior)
    if known is None:
        return None
    loc, scale = (_as_drawn(part, value).expand(value.shape) for part in (known.loc, known.scale))
    if not bool((loc == loc[:1]).all() and (scale == scale[:1]).all()):
        return None  # it depends on another site's draw
    tril = known.scale_tril
    if tril is not None:
        tril = _as_drawn(tril, value[..., None]).expand(*value.shape[:2], *tril.shape[-2:])[0]
    return SiteGaussian(loc[0], scale[0], tril)


def _as_drawn(parameter: Tensor, value: Tensor) -> Tensor:
    """A parameter of a distribution for the first particles alone, of which there are as many as ``value`` has."""
    return parameter[: len(value)] if parameter.dim() == value.dim() else parameter


def marginals_of(prior: TorchDistribution, value: Tensor) -> MixtureMarginals | None:
    """A site of the prior that is the same for every datum."""
    mixture = isinstance(prior, dist.MixtureSameFamily)
    known = _parameters(prior.component_distribution if mixture else prior)
    if known is None:
        return None
    count, event = value.shape[0], value.shape[1:]
    logits = prior.mixture_distribution.logits.log_softmax(-1) if mixture else known.loc.new_zeros(1)
    components = logits.shape[-1]
    shape = (count, components, *event) if mixture else (count, *event)
    tensors = [logits.expand(count, components), known.loc.expand(shape), known.scale.expand(shape)]
    if not all(bool((tensor == tensor[:1]).all()) for tensor in tensors):
        return None
    weight, loc, scale = (as_float64(tensor[0]) for tensor in tensors)
    independent = components == 1 and known.scale_tril is None
    return MixtureMarginals(weight, loc.reshape(components, -1), scale.reshape(components, -1), independent)


def _parameters(distribution: TorchDistribution) -> SiteGaussian | None:
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    if isinstance(distribution, torch.distributions.Normal):
        return SiteGaussian(distribution.loc, distribution.scale, None)
    if isinstance(distribution, torch.distributions.MultivariateNormal):
        return SiteGaussian(distribution.loc, distribution.variance.sqrt(), distribution.scale_tril)
    return None


def as_float64(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())
