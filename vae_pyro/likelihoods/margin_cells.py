"""Numbers whose scores are normal: cells of a table with a margin of their own."""

from math import log, pi
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.special import log_ndtr, ndtri

from vae_pyro.nn.margins import Margins

# Widths, in standard deviations, below which the probability of an interval is expanded about its middle.
_NARROW = 0.2
_NODES = 64


class MarginCells(TorchDistribution):
    """``x = G(u)`` with normal u, where G is the inverse of `Margins`; batch shape ``(*batch, column)``.

    The density of x is that of its score times the slope of the spline. On a lattice it is the probability of the
    interval that is rounded to x, divided by its width: a density in the units of x that is constant between roundings.
    Values that repeat off lattices have the probability of their interval of scores.

    Args:
        loc: of the scores.
        scale: of the scores, positive; broadcasts with ``loc``.
        margins: of the columns.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    has_rsample = False

    def __init__(self, loc: Tensor, scale: Tensor, margins: Margins, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.margins = margins
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MarginCells":
        new = self._get_checked_instance(MarginCells, _instance)
        new.loc, new.scale, new.margins = self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.margins
        super(MarginCells, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        scores = self.margins(value).to(torch.promote_types(self.loc.dtype, value.dtype))
        low, middle, high = ((u - self.loc) / self.scale for u in (scores.low, scores.middle, scores.high))
        width = scores.width / self.scale
        point = -0.5 * middle**2 - 0.5 * log(2 * pi) - self.scale.log()
        interval = scores.width > 0
        some = torch.where(interval, width, torch.full_like(width, _NARROW / 2))
        return torch.where(interval, log_interval(low, middle, high, some), point) + scores.log_factor

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            return self.margins.inverse(self.loc + self.scale * noise).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """Mean of x by the midpoint rule at 64 levels of equal probability; what is rounded stays off the lattice."""
        return self._moments()[0].to(self.loc.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance of x by the same rule."""
        return self._moments()[1].to(self.loc.dtype)

    @torch.no_grad()
    def _moments(self) -> tuple[Tensor, Tensor]:
        mean = torch.zeros_like(self.loc, dtype=torch.float64)
        squares = torch.zeros_like(mean)
        levels = (torch.arange(_NODES, dtype=torch.float64, device=self.loc.device) + 0.5) / _NODES
        for number, node in enumerate(ndtri(levels)):
            x = self.margins.inverse(self.loc + self.scale * node)
            change = x - mean
            mean = mean + change / (number + 1)
            squares = squares + change * (x - mean)
        return mean, squares / _NODES


def log_interval(low: Tensor, middle: Tensor, high: Tensor, width: Tensor) -> Tensor:
    """Log of the probability of an interval under the standard normal distribution.

    Narrow intervals are expanded about their middle m, with ``y = m w / 2``: ``phi(m) w sinh(y) / y`` times
    ``exp(-E[t^2] / 2)``, the second moment about the middle under the tilt ``exp(-m t)``; the error is of the order
    w^4 / 1000. Others are differences of distribution functions in the tail where these are small.

    Args:
        low: lower end.
        middle: of the interval.
        high: upper end.
        width: positive, which is not computed as a difference so that it has all digits.
    """
    narrow = width < _NARROW
    zero = torch.zeros_like(middle)
    m, w = torch.where(narrow, middle, zero), torch.where(narrow, width, _NARROW * torch.ones_like(width))
    y = (m * w / 2).abs()
    large = y > 0.1
    safe = torch.where(large, y, torch.ones_like(y))
    tilt = torch.where(large, safe + torch.log1p(-torch.exp(-2 * safe)) - torch.log(2 * safe), y**2 / 6 - y**4 / 180)
    moment = torch.where(large, 1 + 2 / safe**2 - 2 / (safe * torch.tanh(safe)), 1 / 3 + 2 * y**2 / 45)
    expanded = -0.5 * m**2 - 0.5 * log(2 * pi) + w.log() + tilt - w**2 * moment / 8
    flip = middle > 0
    near = torch.where(narrow, zero, torch.where(flip, -low, high))
    far = torch.where(narrow, zero - 1, torch.where(flip, -high, low))
    top = log_ndtr(near)
    difference = top + torch.log1p(-torch.exp(log_ndtr(far) - top))
    return torch.where(narrow, expanded, difference)
