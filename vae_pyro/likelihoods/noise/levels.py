"""A clean signal of finitely many levels: any noise is integrated over it by a sum."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.likelihoods.noise.mixtures import OrderedCategorical

# x_clean -> p(x | x_clean)
type Given = Callable[[Tensor], TorchDistribution]


def over_levels(signal: TorchDistribution, number: int, given: Given) -> TorchDistribution:
    """``p(x | z) = sum_k P(x_clean = k | z) p(x | k)``, batch shape that of ``signal``.

    Args:
        signal: p(x_clean | z), batch shape ``(*batch, *x_shape)``.
        number: of its levels.
        given: the noise.
    """
    logits = _log_levels(signal, number)
    levels = torch.arange(number, dtype=logits.dtype, device=logits.device)
    noisy = given(levels).expand(logits.shape)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), noisy)


def level_given(
    signal: TorchDistribution, number: int, given: Given, x: Tensor, mask: Tensor | None
) -> OrderedCategorical:
    """``P(x_clean = k | z, x)``, in proportion to ``P(x_clean = k | z) p(x | k)``.

    Args:
        signal: see `over_levels`.
        number: see `over_levels`.
        given: see `over_levels`.
        x: noisy data, broadcasts to the batch shape of ``signal``.
        mask: boolean, shape of ``x``; where it is false ``x`` says nothing.
    """
    logits = _log_levels(signal, number)
    levels = torch.arange(number, dtype=logits.dtype, device=logits.device)
    log_given = given(levels).log_prob(x.unsqueeze(-1))
    if mask is not None:
        log_given = torch.where(mask.unsqueeze(-1), log_given, torch.zeros_like(log_given))
    return OrderedCategorical(logits=logits + log_given)


def _log_levels(signal: TorchDistribution, number: int) -> Tensor:
    """Log probability of each level, ``(*batch, *x_shape, level)``."""
    place = [1] * len(signal.batch_shape)
    like = signal.logits if isinstance(signal, dist.Bernoulli) else signal.loc
    levels = torch.arange(number, dtype=like.dtype, device=like.device).reshape(-1, *place)
    return signal.log_prob(levels.expand(number, *signal.batch_shape)).movedim(0, -1)
