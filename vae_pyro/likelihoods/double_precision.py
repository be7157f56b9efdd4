"""Densities in float64 for models of another floating-point type."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints


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


class _DensityInDouble(TorchDistributionMixin):
    """Log densities in float64 of parameters that keep their type, as do draws and their gradients.

    The terms of these families grow with their parameters and cancel: float32 loses 0.06 nats an element of a Poisson
    at a rate of 1e5, and as much of a gamma or Student t whose shape is as large.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]]
    _validate_args: bool

    def log_prob(self, value: Tensor) -> Tensor:
        parameters = {name: getattr(self, name) for name in type(self).arg_constraints}
        kind = value.dtype
        for parameter in parameters.values():
            kind = torch.promote_types(kind, parameter.dtype)
        exact = type(self)(
            **{name: parameter.double() for name, parameter in parameters.items()}, validate_args=self._validate_args
        )
        log_prob: Tensor = super(_DensityInDouble, exact).log_prob(value.double())
        return log_prob.to(kind)


class GammaInDouble(_DensityInDouble, dist.Gamma):
    """`pyro.distributions.Gamma` with its log density in float64."""


class PoissonInDouble(_DensityInDouble, dist.Poisson):
    """`pyro.distributions.Poisson` with its log density in float64."""


class StudentTInDouble(_DensityInDouble, dist.StudentT):
    """`pyro.distributions.StudentT` with its log density in float64."""
