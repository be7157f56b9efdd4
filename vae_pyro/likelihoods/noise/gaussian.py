"""Additive Gaussian noise of a stated scale."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import Likelihood
from vae_pyro.likelihoods.bernoulli import Bernoulli
from vae_pyro.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from vae_pyro.likelihoods.discretized_logistic import DiscretizedLogisticLikelihood
from vae_pyro.likelihoods.gamma import Gamma
from vae_pyro.likelihoods.gaussian import Gaussian
from vae_pyro.likelihoods.location_scale import LocationScale
from vae_pyro.likelihoods.noise.base import NOISES, FinitePositive, Noise
from vae_pyro.likelihoods.noise.levels import level_given, over_levels

# A reference scale is at least this share of the noisy data's, where the noise explains all of their variance.
_LEAST_SHARE = 0.05


@NOISES.register("gaussian", order=1)
class GaussianNoise(Noise):
    """``x = x_clean + scale * e`` with e standard normal.

    On a Gaussian signal the variances add; on a signal of levels x is a mixture of Gaussians, one at each level.

    Args:
        signal: p(x_clean | z).
        scale: standard deviation of the noise, finite and positive, in units of x.
        deterministic: see `Noise`.

    References:
        Bishop 2006, Pattern recognition and machine learning, eqs. 2.113 to 2.117 (the marginal and the conditional of
        a linear Gaussian model).
    """

    discrete = False
    support = "finite real values"
    signals = (Gaussian, Bernoulli, DiscretizedLogisticLikelihood)
    mean_signals = (Gaussian, Bernoulli, ContinuousBernoulliLikelihood, Gamma)

    def __init__(self, signal: Likelihood, *, scale: FinitePositive, deterministic: bool = False) -> None:
        super().__init__(signal, deterministic=deterministic)
        self.scale = scale
        self.num_levels = None if deterministic else signal.num_values

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return True

    @classmethod
    def given(cls, x_clean: Tensor, low: float, high: float, **options: Any) -> TorchDistribution:
        return dist.Normal(x_clean, options["scale"])

    def _variances(self, output: Tensor) -> tuple[Tensor, Tensor, float]:
        """E[x_clean | z], the variance of the clean signal about it, and that of the noise."""
        loc = self.signal.mean_of(output)
        variance = torch.zeros_like(loc)
        if not self.deterministic:
            assert isinstance(self.signal, LocationScale)
            variance = variance + self.signal.loc_scale(output)[1] ** 2
        return loc, variance, self.scale**2

    def _given(self, x_clean: Tensor) -> TorchDistribution:
        return dist.Normal(x_clean, self.scale)

    def forward(self, output: Tensor) -> TorchDistribution:
        if self.num_levels is not None:
            return over_levels(self.signal(output), self.num_levels, self._given)
        loc, variance, noise = self._variances(output)
        return dist.Normal(loc, (variance + noise).sqrt())

    def clean(self, output: Tensor, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        if self.num_levels is not None:
            x = x if mask is None else self.filled(x, mask)
            return level_given(self.signal(output), self.num_levels, self._given, x, mask)
        loc, variance, noise = self._variances(output)
        if self.deterministic:
            return dist.Delta(torch.broadcast_tensors(loc, x)[0])
        gain = variance / (variance + noise)
        if mask is not None:
            gain = torch.where(mask, gain, torch.zeros_like(gain))
            x = self.filled(x, mask)
        return dist.Normal(loc + gain * (x - loc), (variance * (1 - gain)).sqrt())

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        # Noise has no lattice, and bounds the density where the signal's scale vanishes: no floor from rounding.
        bias = self.signal.initialize(x, observed)
        if isinstance(self.signal, LocationScale):
            reference = self.signal.reference
            least = _LEAST_SHARE * reference
            reference.copy_((reference**2 - self.scale**2).clamp(min=0).sqrt().clamp(min=least))
        return bias
