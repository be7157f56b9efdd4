"""Poisson and negative binomial counts, with excess zeros or without."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vae_pyro.likelihoods.count_densities import (
    log_zero,
    negative_binomial_log_prob,
    poisson_log_prob,
    zero_inflated_log_prob,
)

# Densities of fewer elements, or with a larger share of positive counts, are faster taken all at once.
_LEAST_SPARSE = 100_000
_SPARSE = 0.6


class CountDistribution(TorchDistribution):
    """Independent counts of a mean, an optional dispersion and optional excess zeros.

    Log densities of float32 parameters and values are those of `vae_pyro.likelihoods.count_densities`, within rounding
    of float32; of float64 ones they are those of torch's families, in float64. Draws are made in float64 where there is
    a dispersion or a gate.

    Args:
        rate: m, the mean without a gate, positive, of shape ``batch``.
        dispersion: r of a negative binomial with variance ``m + m^2 / r``; ``None`` for a Poisson. Broadcasts.
        gate_logits: logit of the probability of an excess zero; ``None`` for none. Broadcasts.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self,
        rate: Tensor,
        dispersion: Tensor | None = None,
        gate_logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.rate, self.dispersion, self.gate_logits = rate, dispersion, gate_logits
        shapes = [value.shape for value in (rate, dispersion, gate_logits) if value is not None]
        super().__init__(torch.broadcast_shapes(*shapes), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative_integer

    def expand(self, batch_shape: Any, _instance: Any = None) -> "CountDistribution":
        new = self._get_checked_instance(CountDistribution, _instance)
        new.rate, new.dispersion, new.gate_logits = self.rate.expand(batch_shape), self.dispersion, self.gate_logits
        super(CountDistribution, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def exact(self) -> TorchDistribution:
        """The same distribution in float64, of torch's and Pyro's families."""
        rate = self.rate.double()
        gate = None if self.gate_logits is None else self.gate_logits.double()
        if self.dispersion is None:
            return dist.Poisson(rate) if gate is None else dist.ZeroInflatedPoisson(rate, gate_logits=gate)
        rate, dispersion = torch.broadcast_tensors(rate, self.dispersion.double())
        logits = rate.log() - dispersion.log()
        if gate is None:
            return dist.NegativeBinomial(dispersion, logits=logits)
        return dist.ZeroInflatedNegativeBinomial(dispersion, logits=logits, gate_logits=gate)

    @property
    def mean(self) -> Tensor:
        """Shape ``batch_shape``."""
        return self.moments(self.rate, self.rate.square())[0]

    @property
    def variance(self) -> Tensor:
        """Shape ``batch_shape``."""
        return self.moments(self.rate, self.rate.square())[1]

    def moments(self, rate: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance where the rate is random.

        Args:
            rate: its mean.
            square: the mean of its square.
        """
        second = rate + (square if self.dispersion is None else square + square / self.dispersion)
        passed = 1.0 if self.gate_logits is None else torch.sigmoid(-self.gate_logits)
        mean = (passed * rate).expand(self.batch_shape)
        return mean, passed * second - mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if torch.promote_types(self.rate.dtype, value.dtype) == torch.float64:
            log_prob: Tensor = self.exact.log_prob(value.double())
            return log_prob
        if not torch.is_grad_enabled() and _is_sparse(value, self.rate):
            return self._log_prob_of_sparse(value)
        return _log_prob(value, self.rate, self.dispersion, self.gate_logits)

    def _log_prob_of_sparse(self, value: Tensor) -> Tensor:
        """The density of a zero everywhere, and that of the positive counts in their places."""
        at = value.flatten().nonzero().squeeze(-1)

        def positive(parameter: Tensor) -> Tensor:
            if parameter.dim() < value.dim() or parameter.shape[-value.dim() :] != value.shape:
                parameter = parameter.expand(torch.broadcast_shapes(parameter.shape, value.shape))
            return parameter.flatten(-value.dim()).index_select(-1, at)

        beside = (self.dispersion, self.gate_logits)
        log_prob = log_zero(self.rate, *beside).expand(self.batch_shape).contiguous()
        some = (None if parameter is None else positive(parameter) for parameter in beside)
        found = _log_prob(positive(value), positive(self.rate), *some)
        log_prob.view(*log_prob.shape[: -value.dim()], -1).index_copy_(
            -1, at, found.expand(*log_prob.shape[: -value.dim()], len(at))
        )
        return log_prob

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        if self.dispersion is None and self.gate_logits is None:
            with torch.no_grad():
                return torch.poisson(self.rate.expand(shape + self.batch_shape))
        drawn: Tensor = self.exact.expand(self.batch_shape).sample(shape)
        return drawn.to(self.rate.dtype)


def _log_prob(x: Tensor, rate: Tensor, dispersion: Tensor | None, gate_logits: Tensor | None) -> Tensor:
    log_prob = poisson_log_prob(x, rate) if dispersion is None else negative_binomial_log_prob(x, rate, dispersion)
    if gate_logits is None:
        return log_prob
    return zero_inflated_log_prob(x, log_prob, log_zero(rate, dispersion, gate_logits), gate_logits)


def _is_sparse(value: Tensor, rate: Tensor) -> bool:
    """Whether to find the positive counts among values that are there: not of a trace, nor of a map over a batch."""
    here = type(value) is Tensor and type(rate) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(rate)
    if not here or value.dim() == 0 or rate.shape[-value.dim() :] != value.shape or rate.numel() < _LEAST_SPARSE:
        return False
    return int(value.count_nonzero()) < _SPARSE * value.numel()
