"""Counts: Poisson, negative binomial.

No rate here is a multiple of the datum's own total (the observed library size of Lopez et al. 2018): a density of x
whose parameters are a function of x does not sum to one. What is exact is the density given the total, which for
Poisson counts is `vae_pyro.likelihoods.multinomial.Multinomial`.
"""

from collections.abc import Sequence
from math import exp
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import LIKELIHOODS, Likelihood, inverse_softplus
from vae_pyro.likelihoods.distributions import InDouble
from vae_pyro.nn.features import Log1p, masked_moments

type DispersionOption = Literal["learned", "per_dimension", "predicted"]

# Keeps rates and dispersions away from zero, where a count distribution has no density for a positive count.
RATE_FLOOR = 1e-6

# Upper bound of r: there a negative binomial is a Poisson to rounding, and its terms still differ from each other. That
# is the bound of `vae_pyro.likelihoods.Table`; its lower one lies below the floor.
_MOST_DISPERSION = exp(15.0)


class Counts(Likelihood):
    """Families of counts with a rate from the decoder through a softplus; the encoder sees ``log(1 + x)``."""

    discrete = True
    wants = "integer counts from 0 up"

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
    """What `Counts.rate` turns into a positive ``rate``, or into one that is near the floor where it lies below."""
    return inverse_softplus(torch.maximum(rate - RATE_FLOOR, rate / 2))


@LIKELIHOODS.register("poisson")
class Poisson(Counts):
    """Independent Poisson counts.

    Args:
        x_shape: event shape of x.
    """

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Poisson(self.rate(output))


@LIKELIHOODS.register("negative_binomial")
class NegativeBinomial(Counts):
    """Independent negative binomial counts with mean m and variance ``m + m^2 / r``.

    Densities are computed in float64: they are small differences of terms as large as r, of which float32 loses whole
    nats from an r of 10,000 on. r is at most exp(15), which is a Poisson to rounding.

    Args:
        x_shape: event shape of x.
        dispersion: r is ``learned`` as one number, ``per_dimension``, or ``predicted`` by the decoder.

    References:
        Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics, Nature Methods 15.
        doi:10.1038/s41592-018-0229-2
    """

    def __init__(self, x_shape: Sequence[int], *, dispersion: DispersionOption = "per_dimension") -> None:
        super().__init__(x_shape)
        self.dispersion = dispersion
        self.num_params = 2 if dispersion == "predicted" else 1
        shape = self.x_shape if dispersion == "per_dimension" else ()
        start = inverse_softplus(torch.ones(shape))
        self.raw_dispersion = nn.Parameter(start) if dispersion != "predicted" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        total_count, logits = self.shape_and_logits(output)
        return InDouble(dist.NegativeBinomial(total_count, logits=logits), output.dtype)

    def shape_and_logits(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """r and ``log(m / r)`` in float64, each ``(*batch, *x_shape)``; a predicted r is the decoder's last number."""
        output = output.double()
        raw = self.parameter(output, self.num_params - 1) if self.raw_dispersion is None else self.raw_dispersion
        dispersion = (softplus(raw.double()) + RATE_FLOOR).clamp(max=_MOST_DISPERSION)
        rate, total_count = torch.broadcast_tensors(self.rate(output), dispersion)
        return total_count, rate.log() - total_count.log()
