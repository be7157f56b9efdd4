"""Negative binomial counts: Poisson counts with a spread of their own."""

from collections.abc import Callable, Sequence
from functools import partial
from math import exp
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.likelihoods.base import LIKELIHOODS, inverse_softplus
from vae_pyro.likelihoods.count_distributions import CountDistribution
from vae_pyro.likelihoods.counts import RATE_FLOOR, ExposureOption, RatedCounts

type DispersionOption = Literal["learned", "per_dimension", "predicted"]

# Upper bound of r: there a negative binomial is a Poisson to rounding, and its terms still differ from each other. That
# is the bound of `vae_pyro.likelihoods.table.Table`; its lower one lies below the floor.
_MOST_DISPERSION = exp(15.0)


@LIKELIHOODS.register("negative_binomial", order=10)
class NegativeBinomial(RatedCounts):
    """Independent negative binomial counts with mean m and variance ``m + m^2 / r``.

    r is at most exp(15), which is a Poisson to rounding.

    Args:
        dispersion: r is ``learned`` as one number, ``per_dimension``, or ``predicted`` by the decoder.
        exposure: ``total`` for rates that are shares of the datum's total, given which densities then are.

    References:
        Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics, Nature Methods 15.
        doi:10.1038/s41592-018-0229-2
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        dispersion: DispersionOption = "per_dimension",
        exposure: ExposureOption | None = None,
    ) -> None:
        super().__init__(x_shape, exposure=exposure)
        self.dispersion = dispersion
        self.num_params = 2 if dispersion == "predicted" else 1
        shape = self.x_shape if dispersion == "per_dimension" else ()
        start = inverse_softplus(torch.ones(shape))
        self.raw_dispersion = nn.Parameter(start) if dispersion != "predicted" else None

    def family(self, output: Tensor) -> Callable[[Tensor], CountDistribution]:
        return partial(CountDistribution, dispersion=self.shape_of(output))

    def shape_of(self, output: Tensor) -> Tensor:
        """r, broadcasts to ``(*batch, *x_shape)``; a predicted r is the decoder's last number."""
        raw = self.parameter(output, self.num_params - 1) if self.raw_dispersion is None else self.raw_dispersion
        return (softplus(raw) + RATE_FLOOR).clamp(max=_MOST_DISPERSION)
