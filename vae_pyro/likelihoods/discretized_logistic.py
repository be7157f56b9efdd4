"""Ordered levels, such as raw bytes: a logistic distribution rounded to integers."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, Likelihood, inverse_softplus
from vae_pyro.nn.features import Levels, masked_moments


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


@LIKELIHOODS.register("discretized_logistic", order=8)
class DiscretizedLogisticLikelihood(Likelihood):
    """Independent logistic elements rounded to the integers ``0 .. levels - 1``: a probability of raw bytes.

    Args:
        levels: number of levels.
        scale: ``per_dimension``, ``learned`` as one number, or ``predicted`` by the decoder.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow. arXiv:1606.04934
    """

    discrete = True
    scale_of_data = "none"
    support = "integer levels"

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        levels: Annotated[int, Field(ge=2)] = 256,
        scale: Literal["learned", "per_dimension", "predicted"] = "per_dimension",
    ) -> None:
        super().__init__(x_shape)
        self.levels, self.scale, self.num_values = levels, scale, levels
        self.support = f"integers from 0 to {levels - 1}"
        self.features = Levels(x_shape, levels)
        self.num_params = 2 if scale == "predicted" else 1
        shape = self.x_shape if scale == "per_dimension" else ()
        self.start = inverse_softplus(torch.tensor(levels / 16))
        self.raw_scale = nn.Parameter(self.start.expand(shape).clone()) if scale != "predicted" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        half = (self.levels - 1) / 2
        loc = half * (1 + self.parameter(output, 0))
        raw = self.parameter(output, 1) if self.raw_scale is None else self.raw_scale
        return DiscretizedLogistic(loc, softplus(raw) + BIAS_MARGIN, self.levels)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= 255

    def holds(self, summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= self.levels - 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = mean * (2 / (self.levels - 1)) - 1
        if self.num_params == 2:
            bias[1] = self.start
        return bias.to(x.dtype)
