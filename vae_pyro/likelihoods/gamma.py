"""Positive elements with a gamma distribution: the signal that Poisson noise can be integrated over."""

from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, Likelihood, inverse_softplus
from vae_pyro.likelihoods.counts import RATE_FLOOR
from vae_pyro.likelihoods.double_precision import GammaInDouble
from vae_pyro.nn.features import Log1p, masked_moments

# Keeps means away from zero, far below the values of any units that are in use.
_MEAN_FLOOR = 1e-12

# An element whose mean is zero, as that of noisy data may be, starts at this share of the mean of all.
_LEAST_SHARE = BIAS_MARGIN

# Bounds of the shape that training data start.
_LEAST, _GREATEST = 0.1, 100.0


@LIKELIHOODS.register("gamma", order=6)
class Gamma(Likelihood):
    """Independent gamma elements with mean m, from the decoder through a softplus, and variance ``m^2 / r``.

    Args:
        shape: r is ``learned`` as one number, ``per_dimension``, or ``predicted`` by the decoder.
    """

    discrete = False
    reparameterized = True
    support = "positive values"
    fill = 1.0

    def __init__(
        self, x_shape: Sequence[int], *, shape: Literal["learned", "per_dimension", "predicted"] = "learned"
    ) -> None:
        super().__init__(x_shape)
        self.features = Log1p(x_shape)
        self.shape: str | None = shape
        self.num_params = 2 if shape == "predicted" else 1
        start = inverse_softplus(torch.ones(self.x_shape if shape == "per_dimension" else ()))
        self.raw_shape = nn.Parameter(start) if shape != "predicted" else None

    def drop_spread(self) -> None:
        self.shape, self.raw_shape, self.num_params = None, None, 1

    def mean(self, output: Tensor) -> Tensor:
        """Mean, positive, shape ``(*batch, *x_shape)``."""
        return softplus(self.parameter(output, 0)) + _MEAN_FLOOR

    def forward(self, output: Tensor) -> TorchDistribution:
        mean = self.mean(output)
        if self.shape is None:
            return dist.Delta(mean)
        raw = self.parameter(output, 1) if self.raw_shape is None else self.raw_shape
        concentration = (softplus(raw) + RATE_FLOOR).expand_as(mean)
        return GammaInDouble(concentration, concentration / mean)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.low > 0

    def initialize(
        self, x: Tensor, observed: Tensor, step: float | None = None, *, noise_per_mean: float = 0.0
    ) -> Tensor:
        """As `Likelihood.initialize`; the shape starts at the one that variances of single elements have.

        Where the data are in other units, the mean starts at the same number in those units, and the shape as it did.

        Args:
            x: ``(datum, *x_shape)``.
            observed: boolean, shape of ``x``.
            step: not used.
            noise_per_mean: variance of noise in ``x``, in units of the mean, which is taken off.
        """
        mean, variance = masked_moments(x, observed, [0])
        own = (variance - noise_per_mean * mean).clamp(min=0)
        bias = torch.zeros(self.output_shape, dtype=torch.float64)
        typical = mean.mean()
        least = torch.where(typical > 0, _LEAST_SHARE * typical, torch.full_like(typical, BIAS_MARGIN))
        bias[0] = inverse_softplus((torch.where(mean > 0, mean, least) - _MEAN_FLOOR).clamp(min=_MEAN_FLOOR))
        # Ratios of numbers of the same units; a variance of 0 has no shape, or the greatest.
        squares = mean**2
        spread = squares / (2 * _GREATEST)
        whole = squares.sum() / torch.maximum(own.sum(), spread.sum())
        each = squares / torch.maximum(own, spread)
        start = torch.nan_to_num(each if self.shape == "per_dimension" else whole).clamp(_LEAST, _GREATEST)
        if self.raw_shape is not None:
            with torch.no_grad():
                self.raw_shape.copy_(inverse_softplus(start))
        elif self.shape == "predicted":
            bias[1] = inverse_softplus(start)
        return bias.to(x.dtype)
