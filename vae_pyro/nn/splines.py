"""Monotone rational splines on [-bound, bound], the identity outside, without shapes that depend on the data."""

import torch
from torch import Tensor
from torch.nn.functional import pad

# Least width and height of a bin as a share of the interval, slope at a knot, and distance of a point of division from
# the ends of its bin.
_LEAST_WIDTH, _LEAST_SLOPE, _LEAST_SHARE = 1e-3, 1e-3, 0.025
# Pyro's slope at the ends, by which its splines and these are equal; one of 1 would join the identity smoothly.
_END_SLOPE = 1 - _LEAST_SLOPE
# A value on a knot belongs to the bin below it.
_ON_KNOT = 1e-6


class RationalSpline:
    """A monotone spline of each element, of rational quadratic segments, or of rational linear ones in two parts each.

    Args:
        widths: of the bins, shares that sum to one, ``(*batch, bin)``.
        heights: likewise.
        slopes: at the inner knots, positive, ``(*batch, bin - 1)``; at the ends they are 0.999, and outside 1.
        divisions: where the two parts of a rational linear segment meet, shares of its bin, ``(*batch, bin)``; ``None``
            for rational quadratic segments.
        bound: of the interval.

    Raises:
        ValueError: there are more bins than the least width leaves room for.

    References:
        Durkan et al. 2019, Neural spline flows, eqs. 4-8 (quadratic), and the tails of sec. 3.1. arXiv:1906.04032
        Dolatabadi et al. 2020, Invertible generative modeling using linear rational splines, sec. 3.
        arXiv:2001.05168
    """

    def __init__(self, widths: Tensor, heights: Tensor, slopes: Tensor, divisions: Tensor | None, bound: float) -> None:
        bins = widths.shape[-1]
        if bins * _LEAST_WIDTH > 1:
            raise ValueError(f"a spline has at most {int(1 / _LEAST_WIDTH)} bins, got {bins}")
        self._bound = bound
        self._x, self._y = _knots(widths, bound), _knots(heights, bound)
        self._slopes = pad(slopes + _LEAST_SLOPE, (1, 1), value=_END_SLOPE)
        self._divisions = None if divisions is None else (1 - 2 * _LEAST_SHARE) * divisions + _LEAST_SHARE

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and log derivatives, each of the shape of ``x``."""
        inside, x_in = self._inside(x)
        segment = _Segment(self, self._x, x_in)
        parameter = (x_in - segment.x) / segment.width
        y, log_slope = segment.linear(parameter) if segment.division is not None else segment.quadratic(parameter)
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse values and the log derivatives of the inverse, each of the shape of ``y``."""
        inside, y_in = self._inside(y)
        segment = _Segment(self, self._y, y_in)
        divided = segment.division is not None
        parameter = segment.linear_inverse(y_in) if divided else segment.quadratic_inverse(y_in)
        log_slope = (segment.linear(parameter) if divided else segment.quadratic(parameter))[1]
        return torch.where(inside, parameter * segment.width + segment.x, y), torch.where(inside, -log_slope, 0.0)

    def _inside(self, value: Tensor) -> tuple[Tensor, Tensor]:
        inside = value.abs() <= self._bound
        return inside, torch.where(inside, value, 0.0)


class _Segment:
    """The segment that each value lies in.

    Args:
        spline: of all segments.
        knots: of the axis of the values, ``(*batch, bin + 1)``.
        values: within the interval, ``batch`` broadcasts to their shape.
    """

    def __init__(self, spline: RationalSpline, knots: Tensor, values: Tensor) -> None:
        inner = knots[..., 1:-1] + _ON_KNOT
        # Bins are marked by zeros and ones, and a sum over them picks: no index depends on the data.
        at_least = pad((values.unsqueeze(-1) >= inner).to(values.dtype), (1, 1), value=0.0)
        at_least[..., 0] = 1
        chosen = at_least[..., :-1] - at_least[..., 1:]

        def pick(of_bins: Tensor) -> Tensor:
            return (chosen * of_bins).sum(-1)

        self.x, self.y = pick(spline._x[..., :-1]), pick(spline._y[..., :-1])
        self.width, self.height = pick(spline._x.diff(dim=-1)), pick(spline._y.diff(dim=-1))
        self.first, self.last = pick(spline._slopes[..., :-1]), pick(spline._slopes[..., 1:])
        self.mean_slope = self.height / self.width
        self.division = None if spline._divisions is None else pick(spline._divisions)

    @property
    def _curvature(self) -> Tensor:
        return self.first + self.last - 2 * self.mean_slope

    def quadratic(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log derivative at the share t of the bin's width, eqs. 4 and 5 of Durkan et al."""
        both = t * (1 - t)
        below = self.mean_slope + self._curvature * both
        y = self.y + self.height * (self.mean_slope * t.square() + self.first * both) / below
        rise = self.last * t.square() + 2 * self.mean_slope * both + self.first * (1 - t).square()
        return y, 2 * torch.log(self.mean_slope) + torch.log(rise) - 2 * torch.log(below)

    def quadratic_inverse(self, y: Tensor) -> Tensor:
        """The share t of the bin's width at which the value is y, eqs. 6-8: the root that rises with y."""
        above = y - self.y
        a = self.height * (self.mean_slope - self.first) + above * self._curvature
        b = self.height * self.first - above * self._curvature
        c = -self.mean_slope * above
        return 2 * c / (-b - torch.sqrt((b.square() - 4 * a * c).clamp(min=0)))

    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights at the bin's end and at the division (1 at its start), and the value there; and the division."""
        share = self.division
        assert share is not None
        end = torch.sqrt(self.first / self.last)
        middle = (share * self.first + (1 - share) * end * self.last) / self.mean_slope
        top = self.y + self.height
        value = ((1 - share) * self.y + share * end * top) / ((1 - share) + share * end)
        return end, middle, value, share

    def linear(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log derivative at the share t of the bin's width."""
        end, middle, value, share = self._weights()
        top = self.y + self.height
        low = t <= share
        numerator = torch.where(
            low,
            self.y * (share - t) + middle * value * t,
            middle * value * (1 - t) + end * top * (t - share),
        )
        below = torch.where(low, (share - t) + middle * t, middle * (1 - t) + end * (t - share))
        rise = torch.where(low, share * (value - self.y), end * (1 - share) * (top - value)) * middle / self.width
        return numerator / below, torch.log(rise) - 2 * torch.log(below)

    def linear_inverse(self, y: Tensor) -> Tensor:
        """The share t of the bin's width at which the value is y."""
        end, middle, value, share = self._weights()
        top = self.y + self.height
        low = y <= value
        numerator = torch.where(
            low, share * (self.y - y), (middle - share * end) * y + share * end * top - middle * value
        )
        below = torch.where(
            low, (middle - 1) * y + self.y - middle * value, (middle - end) * y + end * top - middle * value
        )
        return numerator / below


def _knots(shares: Tensor, bound: float) -> Tensor:
    """Positions of the knots, ``(*batch, bin + 1)``, of bins that have such shares of the interval beyond the least."""
    bins = shares.shape[-1]
    inner = (_LEAST_WIDTH + (1 - _LEAST_WIDTH * bins) * shares).cumsum(-1)[..., :-1]
    return pad(pad(2 * bound * inner - bound, (1, 0), value=-bound), (0, 1), value=bound)
