"""Densities in float64 for models of another floating-point type."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
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
