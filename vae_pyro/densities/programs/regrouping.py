"""Distributions of rows, as distributions of particles and data."""

import copy
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution


def regroup(parts: list[TorchDistribution], num_particles: int, value: Tensor, log_prob: Tensor) -> TorchDistribution:
    """One distribution of batch shape ``(particle, datum)`` from those of rows.

    Parameters are put side by side, so that its class stays, where it then gives the same densities; where not, it
    stands for the others.

    Args:
        parts: one with a row for each particle and datum, or one a particle with a row for each datum.
        num_particles: number of particles.
        value: of all rows, ``(particle, datum, *event)``.
        log_prob: its log density, ``(particle, datum)``.
    """
    try:
        one: TorchDistribution = _joined(parts, num_particles)
        found = one.log_prob(value)
        if found.shape == log_prob.shape and torch.allclose(found, log_prob, rtol=1e-4, atol=1e-5, equal_nan=True):
            return one
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError):
        pass
    return Regrouped(parts, num_particles, log_prob.shape[1])


def _joined(parts: list[Any], num_particles: int) -> Any:
    first = parts[0]
    rows = first.batch_shape
    joined = copy.copy(first)
    for name, value in vars(first).items():
        values = [vars(part)[name] for part in parts]
        if isinstance(value, Distribution):
            joined.__dict__[name] = _joined(values, num_particles)
        elif isinstance(value, Tensor) and value.shape[: len(rows)] == rows:
            joined.__dict__[name] = _side_by_side(values, num_particles)
    joined._batch_shape = torch.Size((num_particles, rows[0] * len(parts) // num_particles, *rows[1:]))
    return joined


def _side_by_side(values: list[Tensor], num_particles: int) -> Tensor:
    if len(values) > 1:
        return torch.stack(values)
    return values[0].reshape(num_particles, len(values[0]) // num_particles, *values[0].shape[1:])


class Regrouped(TorchDistribution):
    """Stands for distributions of rows whose parameters are not known to be tensors side by side."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (the interface of torch)

    def __init__(self, parts: list[TorchDistribution], num_particles: int, num_data: int) -> None:
        self._parts, self._shape = parts, torch.Size((num_particles, num_data))
        super().__init__(self._shape, parts[0].event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """As that of each."""
        return self._parts[0].support

    @property
    def has_rsample(self) -> bool:
        """As that of each."""
        return bool(self._parts[0].has_rsample)

    @property
    def mean(self) -> Tensor:
        """``(particle, datum, *event)``."""
        return self._whole([part.mean for part in self._parts])

    @property
    def variance(self) -> Tensor:
        """``(particle, datum, *event)``."""
        return self._whole([part.variance for part in self._parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of values that broadcast to ``(particle, datum, *event)``."""
        rows = value.expand(*self._shape, *self.event_shape)
        flat = [rows.flatten(0, 1)] if len(self._parts) == 1 else list(rows)
        return self._whole([part.log_prob(some) for part, some in zip(self._parts, flat, strict=True)])

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draws, ``(*sample_shape, particle, datum, *event)``."""
        if sample_shape:
            drawn = [self.sample() for _ in range(sample_shape.numel())]
            return torch.stack(drawn).reshape(*sample_shape, *drawn[0].shape)
        return self._whole([part.sample() for part in self._parts])

    def _whole(self, values: list[Tensor]) -> Tensor:
        joined = torch.stack(values)
        return joined.reshape(*self._shape, *joined.shape[2:])
