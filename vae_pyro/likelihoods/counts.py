"""Base of the likelihoods of counts: a rate from the decoder, and its start at the mean of the data.

No rate here is a multiple of the datum's own total (the observed library size of Lopez et al. 2018): a density of x
whose parameters are a function of x does not sum to one. The density given the total is exact, and for Poisson counts
it is `vae_pyro.likelihoods.multinomial.Multinomial`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import Likelihood, inverse_softplus
from vae_pyro.nn.features import Log1p, masked_moments

# Keeps rates and dispersions away from zero, where a count distribution has no density for a positive count.
RATE_FLOOR = 1e-6


class Counts(Likelihood):
    """Families of counts with a rate from the decoder through a softplus; the encoder reads ``log(1 + x)``."""

    discrete = True
    scale_of_data = "none"
    support = "integer counts from 0 up"

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__(x_shape)
        self.features = Log1p(x_shape)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    def rate(self, output: Tensor) -> Tensor:
        """Mean count, positive, shape ``(*batch, *x_shape)``."""
        return softplus(self.parameter(output, 0)) + RATE_FLOOR

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = bias_of_rate(possible_mean(x, observed))
        return bias.to(x.dtype)


def possible_mean(x: Tensor, observed: Tensor) -> Tensor:
    """Mean count of each element, at least that of half an event in all its data: one that never occurred can occur.

    An absolute floor would do more the sparser the data are: of 20,000 columns with one event in 10,000 rows each,
    a floor of 1e-3 expects ten times as many events in a row as there are.

    Args:
        x: ``(datum, *x_shape)``.
        observed: boolean, shape of ``x``.

    Returns:
        ``x_shape``, float64, positive; 1/2 for an element that nothing was observed of.
    """
    mean, _ = masked_moments(x, observed, [0])
    return torch.maximum(mean, 0.5 / observed.sum(0, dtype=torch.float64).clamp(min=1))


def bias_of_rate(rate: Tensor) -> Tensor:
    """Inverse of `Counts.rate` for a positive ``rate``; below the floor, near it."""
    return inverse_softplus(torch.maximum(rate - RATE_FLOOR, rate / 2))
