"""Distributions that torch and Pyro lack, or hold in a form that is not exact where a decoder puts them."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

# Below this |logit| the closed forms of the continuous Bernoulli lose digits to cancellation, and five terms of the
# Taylor series are exact to 1e-15.
_SERIES = 0.1


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
        # Solved for a falling density and mirrored for a rising one, so that neither side overflows or cancels.
        size = self.logits.abs().clamp(min=1e-30)
        rising = self.logits > 0
        side = torch.where(rising, 1 - value, value)
        quantile = -torch.log1p(side * torch.expm1(-size)) / size
        return torch.where(rising, 1 - quantile, quantile).clamp(0, 1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))


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

    def _moment(self, power: int) -> Tensor:
        # E[X^p] = sum over k >= 1 of (k^p - (k - 1)^p) P(X >= k); a loop, since levels x pixels need not fit in memory.
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total = total + (k**power - (k - 1) ** power) * torch.sigmoid((self.loc - (k - 0.5)) / self.scale)
        return total

    @property
    def mean(self) -> Tensor:
        """Exact mean of the rounded distribution, in levels."""
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        """Exact variance of the rounded distribution, in levels squared."""
        return self._moment(2) - self._moment(1) ** 2
