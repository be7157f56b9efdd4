"""Photon counts: Poisson noise at a stated peak."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import Likelihood
from vae_pyro.likelihoods.bernoulli import Bernoulli
from vae_pyro.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from vae_pyro.likelihoods.counts import RATE_FLOOR
from vae_pyro.likelihoods.discretized_logistic import DiscretizedLogisticLikelihood
from vae_pyro.likelihoods.double_precision import GammaInDouble, InDouble, PoissonInDouble
from vae_pyro.likelihoods.gamma import Gamma
from vae_pyro.likelihoods.noise.base import NOISES, FinitePositive, Noise
from vae_pyro.likelihoods.noise.levels import level_given, over_levels
from vae_pyro.likelihoods.poisson import Poisson
from vae_pyro.nn.features import Features


class RootCounts(Features):
    """``sqrt((x + 3/8) / (peak + 3/8))``: the variance of a transformed Poisson count hardly depends on its mean.

    References:
        Anscombe 1948, The transformation of Poisson, binomial and negative-binomial data, Biometrika 35.
        doi:10.1093/biomet/35.3-4.246
    """

    def __init__(self, x_shape: Sequence[int], peak: float) -> None:
        super().__init__(x_shape)
        self.peak = peak

    def transform(self, x: Tensor) -> Tensor:
        return ((x + 0.375).clamp(min=0) / (self.peak + 0.375)).sqrt()


@NOISES.register("poisson", order=2)
class PoissonNoise(Noise):
    """``x ~ Poisson(peak * x_clean)``: a gamma signal makes x negative binomial, a deterministic one Poisson.

    A gamma signal of mean m and shape r given x is gamma of shape ``r + x`` and rate ``r / m + peak``; it is never 0. A
    signal of levels, which may be, makes x a mixture of Poissons, one for each level.

    Args:
        signal: p(x_clean | z) of a signal that is not negative.
        peak: mean count where the clean signal is 1, finite and positive.
        deterministic: see `Noise`.

    References:
        Gelman et al. 2013, Bayesian data analysis, 3rd ed., sec. 2.6 (Poisson model with a gamma prior).
    """

    support = "integer counts from 0 up"
    scale_of_data = "none"
    signals = (Gamma, Bernoulli, DiscretizedLogisticLikelihood)
    mean_signals = (Gamma, Bernoulli, ContinuousBernoulliLikelihood, Poisson)
    peak: float

    def __init__(self, signal: Likelihood, *, peak: FinitePositive, deterministic: bool = False) -> None:
        super().__init__(signal, deterministic=deterministic)
        self.discrete = True
        self.peak, self.fill = peak, 0.0
        number = signal.num_values
        self.features = RootCounts(signal.x_shape, peak * (1 if number is None else number - 1))
        self.num_levels = None if deterministic else number

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    @classmethod
    def given(cls, x_clean: Tensor, low: float, high: float, **options: Any) -> TorchDistribution:
        if x_clean.min() < 0:
            raise ValueError(f"Poisson noise requires a clean signal of at least 0, got {float(x_clean.min()):g}")
        return PoissonInDouble(options["peak"] * x_clean)

    def rescaled(self, x: Tensor) -> Tensor:
        return x / self.peak

    def _given(self, x_clean: Tensor) -> TorchDistribution:
        return PoissonInDouble(self.peak * x_clean)

    def forward(self, output: Tensor) -> TorchDistribution:
        if self.num_levels is not None:
            return over_levels(self.signal(output), self.num_levels, self._given)
        if self.deterministic:
            return PoissonInDouble(self.peak * self.signal.mean_of(output) + RATE_FLOOR)
        signal = self.signal(output)
        shape, rate = signal.concentration.double(), signal.rate.double()
        return InDouble(dist.NegativeBinomial(shape, logits=torch.log(self.peak / rate)), output.dtype)

    def clean(self, output: Tensor, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        if self.deterministic:
            return dist.Delta(torch.broadcast_tensors(self.signal.mean_of(output), x)[0])
        signal = self.signal(output)
        if self.num_levels is not None:
            x = x if mask is None else self.filled(x, mask)
            return level_given(signal, self.num_levels, self._given, x, mask)
        seen = torch.ones_like(signal.rate) if mask is None else mask.to(signal.rate.dtype)
        x = x if mask is None else self.filled(x, mask)
        return GammaInDouble(signal.concentration + seen * x, signal.rate + seen * self.peak)

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        # The mean of x / peak is that of the clean data; only a gamma signal looks at more than the mean.
        if isinstance(self.signal, Gamma):
            return self.signal.initialize(x / self.peak, observed, noise_per_mean=1 / self.peak)
        return self.signal.initialize(x / self.peak, observed)
