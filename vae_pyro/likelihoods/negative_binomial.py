"""Negative binomial counts: Poisson counts with a spread of their own."""

from collections.abc import Sequence
from math import exp
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.likelihoods.base import LIKELIHOODS, inverse_softplus
from vae_pyro.likelihoods.counts import RATE_FLOOR, Counts
from vae_pyro.likelihoods.double_precision import InDouble

type DispersionOption = Literal["learned", "per_dimension", "predicted"]

# Upper bound of r: there a negative binomial is a Poisson to rounding, and its terms still differ from each other. That
# is the bound of `vae_pyro.likelihoods.table.Table`; its lower one lies below the floor.
_MOST_DISPERSION = exp(15.0)


@LIKELIHOODS.register("negative_binomial", order=10)
class NegativeBinomial(Counts):
    """Independent negative binomial counts with mean m and variance ``m + m^2 / r``.

    Densities are computed in float64: they are small differences of terms as large as r, of which float32 loses whole
    nats from an r of 10,000 on. r is at most exp(15), which is a Poisson to rounding.

    Args:
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
