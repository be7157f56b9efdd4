"""Counts with excess zeros: a gate, predicted by the decoder, adds zeros to a Poisson or negative binomial family."""

from collections.abc import Callable, Sequence
from functools import partial
from math import log

import torch
from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS, inverse_softplus
from vae_pyro.likelihoods.count_distributions import CountDistribution
from vae_pyro.likelihoods.counts import RATE_FLOOR, ExposureOption, RatedCounts, bias_of_rate, possible_mean
from vae_pyro.likelihoods.negative_binomial import DispersionOption, NegativeBinomial
from vae_pyro.nn.features import masked_moments

# The gate starts this far from 0 and 1, where its logit has no gradient to speak of.
_GATE_MARGIN = 1e-2
_GATE = 1


def _start(
    x: Tensor, observed: Tensor, positive: Callable[[Tensor], Tensor], num_params: int, shape: Sequence[int]
) -> Tensor:
    """Output bias at which every element has the mean and, where the family can, the share of zeros of the data.

    With gate g, rate m and P0(m) the family's own probability of a zero, the mean is ``(1 - g) m`` and the mean of the
    positive counts ``m / (1 - P0(m))``, which rises with m: bisection finds m, and g follows. Data with fewer zeros
    than the family has start with a gate that is nearly shut.

    Args:
        x: ``(datum, *x_shape)``.
        observed: boolean, shape of ``x``.
        positive: m -> ``1 - P0(m)``.
        num_params: numbers for each element.
        shape: of one datum.

    Returns:
        Shape ``(num_params, *x_shape)``, float64; rate and gate are filled.
    """
    mean = possible_mean(x, observed)
    some, _ = masked_moments((x > 0).to(torch.float64), observed, [0])
    low, high = mean, torch.maximum(mean / some.clamp(min=1e-12), mean)
    high = torch.where(some > 0, high, mean)
    positive_mean = high
    for _ in range(60):
        middle = (low + high) / 2
        below = middle / positive(middle) < positive_mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    gate = (1 - mean / low).clamp(_GATE_MARGIN, 1 - _GATE_MARGIN)
    bias = torch.zeros(num_params, *shape, dtype=torch.float64)
    bias[0] = bias_of_rate(mean / (1 - gate))
    bias[_GATE] = torch.logit(gate)
    return bias


def _shut(bias: Tensor) -> Tensor:
    """The gate nearly shut: shares of an exposure sum to one, so that rates cannot make up for an open gate."""
    bias[_GATE] = log(_GATE_MARGIN / (1 - _GATE_MARGIN))
    return bias


@LIKELIHOODS.register("zero_inflated_poisson", order=11)
class ZeroInflatedPoisson(RatedCounts):
    """Independent counts that are zero with probability g, and Poisson otherwise.

    ``p(x) = g 1[x = 0] + (1 - g) Poisson(x; m)``, with mean ``(1 - g) m``; the decoder gives m and the logit of g.

    Args:
        exposure: ``total`` for rates that are shares of the datum's total, given which densities then are.

    References:
        Lambert 1992, Zero-inflated Poisson regression, with an application to defects in manufacturing,
        Technometrics 34. doi:10.2307/1269547
    """

    num_params = 2

    def family(self, output: Tensor) -> Callable[[Tensor], CountDistribution]:
        return partial(CountDistribution, gate_logits=self.parameter(output, _GATE))

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        if self.exposure is not None:
            return _shut(super().initialize(x, observed, step))
        return _start(x, observed, lambda rate: -torch.expm1(-rate), self.num_params, self.x_shape).to(x.dtype)


@LIKELIHOODS.register("zero_inflated_negative_binomial", order=12)
class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Independent counts that are zero with probability g, and negative binomial otherwise.

    ``p(x) = g 1[x = 0] + (1 - g) NB(x; m, r)``, with mean ``(1 - g) m``; see `NegativeBinomial` for m and r. The
    decoder gives the rate, the logit of g, and r where that is predicted.

    Args:
        dispersion: r is ``learned`` as one number, ``per_dimension``, or ``predicted`` by the decoder.
        exposure: ``total`` for rates that are shares of the datum's total, given which densities then are.

    References:
        Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics, Nature Methods 15.
        doi:10.1038/s41592-018-0229-2. Their rate is a share of the cell's own total, as with ``exposure=total``;
        without it the rate is the decoder's, and the density of x is normalised.
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        dispersion: DispersionOption = "per_dimension",
        exposure: ExposureOption | None = None,
    ) -> None:
        super().__init__(x_shape, dispersion=dispersion, exposure=exposure)
        self.num_params += 1

    def family(self, output: Tensor) -> Callable[[Tensor], CountDistribution]:
        gate = self.parameter(output, _GATE)
        return partial(CountDistribution, dispersion=self.shape_of(output), gate_logits=gate)

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        # r starts at 1, a geometric distribution, whose probability of a zero is 1 / (1 + m).
        if self.exposure is None:
            bias = _start(x, observed, lambda rate: rate / (1 + rate), self.num_params, self.x_shape)
        else:
            bias = _shut(super().initialize(x, observed, step)).double()
        if self.raw_dispersion is None:
            bias[-1] = inverse_softplus(torch.tensor(1 - RATE_FLOOR, dtype=torch.float64))
        return bias.to(x.dtype)
