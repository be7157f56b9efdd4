"""Base of the likelihoods of counts: a rate from the decoder, and its start at the mean of the data.

With ``exposure=total`` a rate is a share of the datum's own total (the observed library size of Lopez et al. 2018).
That density is conditional on an exposure that is read off x, and is comparable with its like alone; the measure says
so. The density given the total that sums to one is, for Poisson counts, that of
`vae_pyro.likelihoods.multinomial.Multinomial`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Literal

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.densities.measure import Measure
from vae_pyro.likelihoods.base import Likelihood, inverse_softplus
from vae_pyro.likelihoods.count_distributions import CountDistribution
from vae_pyro.likelihoods.exposure import (
    NUM_TOTALS,
    CountsOfTotal,
    log_shares,
    quantiles_of,
    rate_of,
    shares_of,
    totals_of,
)
from vae_pyro.nn.features import Log1p, masked_moments

# Keeps rates and dispersions away from zero, where a count distribution has no density for a positive count.
RATE_FLOOR = 1e-6


type ExposureOption = Literal["total"]


class Counts(Likelihood):
    """Families of counts; the encoder reads ``log(1 + x)``."""

    discrete = True
    scale_of_data = "none"
    support = "integer counts from 0 up"

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__(x_shape)
        self.features = Log1p(x_shape)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0


class RatedCounts(Counts):
    """Families of counts whose rate is the decoder's, through a softplus, or a share of an exposure.

    Args:
        exposure: ``total`` for rates that are the datum's total times a softmax over its elements; densities are then
            given this exposure. A draw of new data takes that of a datum of the training data, of which 512 quantiles
            are kept; a mean is that of the mean exposure.

    References:
        Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics, Nature Methods 15.
        doi:10.1038/s41592-018-0229-2 (the observed library size)
    """

    totals: Tensor

    def __init__(self, x_shape: Sequence[int], *, exposure: ExposureOption | None = None) -> None:
        super().__init__(x_shape)
        self.exposure = exposure
        if exposure is not None:
            self.register_buffer("totals", torch.full((NUM_TOTALS,), float(prod(self.x_shape))))

    @property
    def measure(self) -> Measure:
        return super().measure if self.exposure is None else Measure.GIVEN_EXPOSURE

    @property
    def elementwise(self) -> bool:
        return self.exposure is None

    @abstractmethod
    def family(self, output: Tensor) -> Callable[[Tensor], CountDistribution]:
        """Rates -> distribution of each element, with what else the decoder's output says of it."""

    def forward(self, output: Tensor) -> TorchDistribution:
        """The distribution of each element alone; with an exposure, at the mean of those of the training data."""
        return self.family(output)(self.rate(output))

    def observed(self, output: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        if self.exposure is None:
            return super().observed(output, mask)
        logits = self.parameter(output, 0)
        return CountsOfTotal(self.family(output), logits, len(self.x_shape), self.totals, mask)

    def rate(self, output: Tensor) -> Tensor:
        """Mean count of the family, positive, shape ``(*batch, *x_shape)``; with an exposure, at its mean."""
        raw = self.parameter(output, 0)
        if self.exposure is None:
            return softplus(raw) + RATE_FLOOR
        return rate_of(self.totals.mean(), shares_of(raw, len(self.x_shape)))

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        if self.exposure is None:
            bias[0] = bias_of_rate(possible_mean(x, observed))
        else:
            bias[0] = log_shares(x, observed)
            totals = totals_of(x, observed)
            if totals is not None:
                self.totals.copy_(quantiles_of(totals))
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
