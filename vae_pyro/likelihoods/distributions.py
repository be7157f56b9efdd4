"""Distributions that torch and Pyro lack, or hold in a form that is not exact where a decoder puts them."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

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
        # torch draws multiples of eps / 2, 0 among them, which stands for what is below the next: its quantile is an
        # end, without a gradient.
        return self.icdf(uniform.clamp(min=torch.finfo(uniform.dtype).eps / 4))


class InDouble(TorchDistribution):
    """A distribution whose parameters are float64, in a model of another floating-point type.

    Densities and moments are computed in float64 and cast, and draws are cast: for log densities that are small
    differences of large numbers. Gradients of parameters that were cast from float32 are summed in float64 as well.

    Args:
        exact: the distribution, without event dimensions.
        dtype: floating-point type of draws, moments and, for values of the same type, log densities.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(self, exact: TorchDistribution, dtype: torch.dtype) -> None:
        self.exact, self.dtype = exact, dtype
        # The distribution validates its parameters and values itself.
        super().__init__(exact.batch_shape, validate_args=False)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> constraints.Constraint:
        held: constraints.Constraint = self.exact.support
        return held

    def expand(self, batch_shape: Any, _instance: Any = None) -> "InDouble":
        new = self._get_checked_instance(InDouble, _instance)
        new.exact, new.dtype = self.exact.expand(torch.Size(batch_shape)), self.dtype
        super(InDouble, new).__init__(torch.Size(batch_shape), validate_args=False)
        return new

    @property
    def mean(self) -> Tensor:
        """Of the distribution, shape ``batch_shape``."""
        return self.exact.mean.to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """Of the distribution, shape ``batch_shape``."""
        return self.exact.variance.to(self.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        kind = torch.promote_types(self.dtype, value.dtype)
        return self.exact.log_prob(value.double()).to(kind)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.exact.sample(torch.Size(sample_shape)).to(self.dtype)


class DiscretizedLogistic(TorchDistribution):
    """Logistic distribution rounded to the integers ``0 .. levels - 1``, with the tails added to the end levels.

    ``P(x) = S((x + 1/2 - loc) / scale) - S((x - 1/2 - loc) / scale)`` with ``S`` the logistic function. The difference
    is computed as ``S(b) S(-a) (1 - exp(a - b))``, which is exact and loses no digits in either tail.

    Args:
        loc: location in units of levels, any shape.
        scale: positive, in units of levels.
        levels: number of levels.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow, appendix (discretised
        logistic). arXiv:1606.04934
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    has_rsample = False

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale, new.levels = self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels
        super(DiscretizedLogistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        upper = (value + 0.5 - self.loc) / self.scale
        lower = (value - 0.5 - self.loc) / self.scale
        below, above = logsigmoid(upper), logsigmoid(-lower)
        interior = below + above + torch.log(-torch.expm1(-1 / self.scale))
        ends = torch.where(value < 0.5, below, above)
        return torch.where((value < 0.5) | (value > self.levels - 1.5), ends, interior)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            draw = self.loc + self.scale * torch.logit(uniform, eps=torch.finfo(uniform.dtype).eps)
            return draw.round().clamp(0, self.levels - 1)

    def _at_least(self, loc: Tensor, scale: Tensor) -> Iterator[tuple[int, Tensor]]:
        # k and P(X >= k); one after the other, since levels x pixels need not fit in memory.
        for k in range(1, self.levels):
            yield k, torch.sigmoid((loc - (k - 0.5)) / scale)

    @property
    def mean(self) -> Tensor:
        """Exact mean of the rounded distribution, in levels."""
        total = torch.zeros_like(self.loc)
        for _, share in self._at_least(self.loc, self.scale):
            total = total + share
        return total

    @property
    def variance(self) -> Tensor:
        """Exact variance of the rounded distribution, in levels squared."""
        # E[X^2] is the sum over k >= 1 of (2 k - 1) P(X >= k). In float64: it is as large as the mean's square, from
        # which a narrow distribution differs by less than float32 holds.
        first = second = torch.zeros_like(self.loc, dtype=torch.float64)
        for k, share in self._at_least(self.loc.double(), self.scale.double()):
            first, second = first + share, second + (2 * k - 1) * share
        return (second - first**2).clamp(min=0).to(self.loc.dtype)
