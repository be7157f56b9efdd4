"""Discrete distributions with atoms: those of elements of which some are replaced by a level."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class AtomMixture(TorchDistribution):
    """Mixture of a discrete distribution and of single values.

    ``P(x) = (1 - sum_k share_k) base(x) + sum_k share_k [x = atom_k]``.

    Args:
        base: a distribution with probabilities, batch shape ``(*batch)`` or one that broadcasts to it.
        atoms: the values, ``(*batch, atom)``, likewise.
        shares: their probabilities, likewise; their sum is at most 1.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self, base: TorchDistribution, atoms: Tensor, shares: Tensor, validate_args: bool | None = None
    ) -> None:
        shape = torch.broadcast_shapes(base.batch_shape, atoms.shape[:-1], shares.shape[:-1])
        self.base, self.atoms, self.shares = base.expand(shape), atoms, shares
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return self.base.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "AtomMixture":
        new = self._get_checked_instance(AtomMixture, _instance)
        new.base = self.base.expand(batch_shape)
        new.atoms, new.shares = self.atoms, self.shares
        super(AtomMixture, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def rest(self) -> Tensor:
        """Share of the base, ``(*batch)`` or a shape that broadcasts to it."""
        return (1 - self.shares.sum(-1)).clamp(min=0)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_p = self.rest.log() + self.base.log_prob(value)
        for k in range(self.atoms.shape[-1]):
            share = torch.where(value == self.atoms[..., k], self.shares[..., k], torch.zeros_like(self.shares[..., k]))
            log_p = torch.logaddexp(log_p, share.log())
        return log_p

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            drawn = self.base.sample(torch.Size(sample_shape)).to(self.atoms.dtype)
            uniform = torch.rand(drawn.shape, dtype=drawn.dtype, device=drawn.device)
            reached = torch.zeros((), dtype=drawn.dtype, device=drawn.device)
            value = drawn
            for k in range(self.atoms.shape[-1]):
                beyond = reached + self.shares[..., k]
                value = torch.where((uniform >= reached) & (uniform < beyond), self.atoms[..., k], value)
                reached = beyond
            return value

    @property
    def mean(self) -> Tensor:
        """Exact where the base's is."""
        return self.rest * self.base.mean + (self.shares * self.atoms).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Exact where the base's is."""
        mean = self.mean
        spread = (self.shares * (self.atoms - mean.unsqueeze(-1)) ** 2).sum(-1)
        return self.rest * (self.base.variance + (self.base.mean - mean) ** 2) + spread


class OrderedCategorical(dist.Categorical):
    """A categorical distribution whose classes are levels ``0 .. num_classes - 1``, with the mean of a number."""

    @property
    def _levels(self) -> Tensor:
        return torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)

    @property
    def mean(self) -> Tensor:
        """Mean level, shape ``(*batch)``."""
        return (self.probs * self._levels).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of the level, shape ``(*batch)``."""
        return (self.probs * (self._levels - self.mean.unsqueeze(-1)) ** 2).sum(-1)
