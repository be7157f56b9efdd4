"""Intensities between 0 and 1: the continuous Bernoulli distribution, normalised at every logit."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, Likelihood
from vae_pyro.nn.features import masked_moments

# Below this |logit| the closed forms of the continuous Bernoulli lose digits to cancellation, and five terms of the
# Taylor series are exact to 1e-15.
_SERIES = 0.1

# The same for its quantiles. The derivative of the closed form loses digits as 1 / |logit|: beyond this it is right to
# 1e-5 in float32 and 1e-13 in float64, and the series below is right to 1e-10.
_QUANTILE_SERIES = 0.05


class ContinuousBernoulli(TorchDistribution):
    """Continuous Bernoulli on [0, 1] in its natural parameter, normalised at every logit.

    ``p(x) = exp(logit x - A(logit))`` with ``A(t) = log((exp(t) - 1) / t)``. torch's own class computes the
    normaliser from clamped probabilities: in float32 its density integrates to 0.80 at a logit of 20 and to 0.27
    at 60, which are logits that a decoder of images reaches.

    Args:
        logits: natural parameter, any shape.

    References:
        Loaiza-Ganem & Cunningham 2019, The continuous Bernoulli: fixing a pervasive error in variational
        autoencoders, NeurIPS, eqs. 5-8. arXiv:1907.06845
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ContinuousBernoulli":
        new = self._get_checked_instance(ContinuousBernoulli, _instance)
        new.logits = self.logits.expand(batch_shape)
        super(ContinuousBernoulli, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _split(self) -> tuple[Tensor, Tensor]:
        small = self.logits.abs() < _SERIES
        return small, torch.where(small, torch.ones_like(self.logits), self.logits)

    @property
    def log_normalizer(self) -> Tensor:
        """A(logits) in nats, shape of ``logits``."""
        small, t = self._split()
        size = t.abs()
        closed = t.clamp(min=0) + torch.log(-torch.expm1(-size)) - torch.log(size)
        s = torch.where(small, self.logits, torch.zeros_like(t))
        series = s / 2 + s**2 / 24 - s**4 / 2880 + s**6 / 181440 - s**8 / 9676800
        return torch.where(small, series, closed)

    @property
    def mean(self) -> Tensor:
        """A'(logits), shape of ``logits``."""
        small, t = self._split()
        closed = 1 / -torch.expm1(-t) - 1 / t
        s = torch.where(small, self.logits, torch.zeros_like(t))
        series = 0.5 + s / 12 - s**3 / 720 + s**5 / 30240 - s**7 / 1209600
        return torch.where(small, series, closed)

    @property
    def variance(self) -> Tensor:
        """A''(logits), shape of ``logits``."""
        small, t = self._split()
        closed = 1 / t**2 - 0.25 / torch.sinh(t.clamp(-80, 80) / 2) ** 2
        s = torch.where(small, self.logits, torch.zeros_like(t))
        series = 1 / 12 - s**2 / 240 + s**4 / 6048 - s**6 / 172800
        return torch.where(small, series, closed)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.logits * value - self.log_normalizer

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile function; ``value`` in [0, 1]."""
        small = self.logits.abs() < _QUANTILE_SERIES
        # Solved for a falling density and mirrored for a rising one, so that neither side overflows or cancels.
        size = torch.where(small, torch.ones_like(self.logits), self.logits.abs())
        rising = self.logits > 0
        side, rest = torch.where(rising, 1 - value, value), torch.where(rising, value, 1 - value)
        # exp(-size q) for the quantile q, as a sum of positive terms where it is small, and else by what 1 lacks. Each
        # form is kept from where it has no derivative, which would make that of both a NaN.
        left = rest + side * torch.exp(-size)
        near = left > 0.5
        log_left = torch.log(torch.where(near, torch.ones_like(left), left).clamp(min=torch.finfo(left.dtype).tiny))
        log_near = torch.log1p(torch.where(near, side, torch.zeros_like(side)) * torch.expm1(-size))
        quantile = -torch.where(near, log_near, log_left) / size
        closed = torch.where(rising, 1 - quantile, quantile).clamp(0, 1)
        inside = torch.where(small, self._quantile_series(value), closed)
        return torch.where((value > 0) & (value < 1), inside, value)  # the ends are quantiles of themselves

    def _quantile_series(self, value: Tensor) -> Tensor:
        # log(1 + u (exp(t) - 1)) / t: the log is the cumulant generating function of a Bernoulli variable.
        t = self.logits.clamp(-_QUANTILE_SERIES, _QUANTILE_SERIES)
        w, skew = value * (1 - value), 1 - 2 * value
        fourth, sixth = 1 - 6 * w, 1 - 30 * w + 120 * w**2
        bend = 1 / 2 + t * (skew / 6 + t * (fourth / 24 + t * (skew * (1 - 12 * w) / 120 + t * sixth / 720)))
        return value + t * w * bend

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        # torch draws multiples of eps / 2, among them 0, which stands for all numbers below the next: its quantile is
        # an end, without a gradient.
        return self.icdf(uniform.clamp(min=torch.finfo(uniform.dtype).eps / 4))


@LIKELIHOODS.register("continuous_bernoulli", order=2)
class ContinuousBernoulliLikelihood(Likelihood):
    """Independent continuous Bernoulli elements on [0, 1]; the decoder gives logits.

    References:
        Loaiza-Ganem & Cunningham 2019, The continuous Bernoulli, NeurIPS. arXiv:1907.06845
    """

    discrete = False
    reparameterized = True
    support = "values in [0, 1]"

    def forward(self, output: Tensor) -> TorchDistribution:
        return ContinuousBernoulli(self.parameter(output, 0))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.low >= 0 and summary.high <= 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        low, high = torch.full_like(mean, -1 / BIAS_MARGIN), torch.full_like(mean, 1 / BIAS_MARGIN)
        for _ in range(60):  # the mean rises with the logit and has no closed inverse: bisection
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low.to(x.dtype).unsqueeze(0)
