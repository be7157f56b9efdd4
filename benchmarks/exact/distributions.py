"""Densities on the line that posteriors and wrong guides are made of."""

from math import log, pi
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform, ExpTransform


class CutNormal(TorchDistribution):
    """A Gaussian between two of its quantiles, normalised: density zero outside.

    Args:
        loc: of the whole Gaussian.
        scale: likewise.
        low: probability below the cut, in [0, 1), same shape.
        high: probability below the upper cut.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, low: Any, high: Any) -> None:
        ends = (torch.as_tensor(end, dtype=loc.dtype) for end in (low, high))
        self.loc, self.scale, self.low, self.high = torch.broadcast_tensors(loc, scale, *ends)
        super().__init__(self.loc.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        for name in ("loc", "scale", "low", "high"):
            setattr(new, name, getattr(self, name).expand(batch_shape))
        TorchDistribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        noise = (value - self.loc) / self.scale
        inside = -0.5 * noise**2 - 0.5 * log(2 * pi) - self.scale.log() - (self.high - self.low).log()
        place = torch.special.ndtr(noise)
        # Rounding at the ends is not a miss.
        kept = (place >= self.low - 1e-12) & (place <= self.high + 1e-12)
        return inside.where(kept, torch.full_like(inside, -torch.inf))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype)
        return self.loc + self.scale * torch.special.ndtri(self.low + (self.high - self.low) * u)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)


class Mirrored(CutNormal):
    """A Gaussian cut at 0, or its mirror image, with equal probability: a posterior of two symmetric modes."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__(loc, scale, torch.special.ndtr(-loc / scale), 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.abs()) - log(2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        half = super().rsample(sample_shape)
        return torch.where(torch.rand_like(half) < 0.5, half, -half)


def half_normal(loc: Tensor, scale: Tensor) -> CutNormal:
    """The positive half of `Mirrored`."""
    return CutNormal(loc, scale, torch.special.ndtr(-loc / scale), 1.0)


def log_gamma(concentration: Any, rate: Any) -> Any:
    """The logarithm of a gamma variable: skewed to the left, on the whole line."""
    return dist.TransformedDistribution(dist.Gamma(concentration, rate), [ExpTransform().inv])


def flipped_log_gamma(concentration: Tensor, rate: Tensor) -> Any:
    """`log_gamma` mirrored about its mean: its first two moments, and the opposite skewness."""
    mean = concentration.digamma() - rate.log()
    transforms = [ExpTransform().inv, AffineTransform(2 * mean, torch.tensor(-1.0, dtype=mean.dtype))]
    return dist.TransformedDistribution(dist.Gamma(concentration, rate), transforms)
