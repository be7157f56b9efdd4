"""Scores of the numbers of a table: monotone splines that are fixed from the training data, and their inverses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae_pyro.data.tables.margins import CAPACITY, Margin, fit_margin, lattice_step
from vae_pyro.data.tables.schema import Column

# Score that stands for infinity.
_INFINITE = 1e3
_FIELDS = ("left_tail", "right_tail", "center", "scale")


@dataclass(frozen=True)
class Scores:
    """Where numbers stand among the scores; a point, or an interval that has the probability of a number.

    Attributes:
        low: lower end of the interval, or the point.
        high: upper end, or the point.
        middle: of both.
        width: of the interval, 0 for a point.
        log_factor: log of what a density or a probability of scores is multiplied by: the slope of the spline at a
            point; 1 / step in an interval of a lattice, so that it is a density in the units of x; 1 for other repeated
            values.
    """

    low: Tensor
    high: Tensor
    middle: Tensor
    width: Tensor
    log_factor: Tensor

    def to(self, dtype: torch.dtype) -> "Scores":
        """In another type; widths lose no digits to differences."""
        return Scores(*(getattr(self, name).to(dtype) for name in ("low", "high", "middle", "width", "log_factor")))


class Margins(nn.Module):
    """Numbers ``(*batch, column)`` to scores, and scores to numbers, see `vae_pyro.data.tables.margins`.

    Computations are in float64, whatever the type of the model: buffers hold the bits of float64 numbers as integers,
    which casts of the module leave as they are. Numbers off lattices are read with the digits of float32, in which data
    are held.

    Args:
        columns: that have numbers, real or positive.
    """

    knots: Tensor
    slopes: Tensor
    about: Tensor
    size: Tensor
    step: Tensor
    positive: Tensor

    def __init__(self, columns: list[Column]) -> None:
        super().__init__()
        count = len(columns)
        start = torch.zeros(2, count, CAPACITY, dtype=torch.float64)
        start[..., 1:] = torch.inf
        self.register_buffer("knots", start.view(torch.int64))  # x and u
        self.register_buffer("slopes", torch.ones_like(start).view(torch.int64))  # left and right of each interval
        self.register_buffer("about", torch.ones(len(_FIELDS), count, dtype=torch.float64).view(torch.int64))
        self.register_buffer("size", torch.ones(count, dtype=torch.int64))
        steps = torch.tensor([lattice_step(column) for column in columns], dtype=torch.float64)
        positive = torch.tensor([column.kind == "positive" for column in columns], dtype=torch.bool)
        self.register_buffer("step", steps.view(torch.int64), persistent=False)
        self.register_buffer("positive", positive, persistent=False)

    @property
    def masses(self) -> Tensor:
        """Number of repeated values off lattices, which have probabilities and no density, ``(column,)``."""
        return (self.knots.view(torch.float64)[0].diff() == 0).sum(-1)

    @torch.no_grad()
    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Take the margins of the observed numbers among x, ``(datum, column)``; constants keep a step of width 1."""
        steps, positive = self.step.view(torch.float64).tolist(), self.positive.tolist()
        values, seen = x.detach().double().cpu().numpy(), observed.cpu().numpy()
        for place, (step, above) in enumerate(zip(steps, positive, strict=True)):
            found = values[seen[:, place], place]
            if len(found) and found.min() < found.max():
                self._take(place, fit_margin(found, step, above))
            elif len(found):
                center = float(found[0])
                knot = np.array([center])
                zero = np.zeros(1)
                shape = (0.0, 1.0) if above else (center, max(abs(center), 1.0))
                self._take(place, Margin(knot, zero, zero[:0], zero[:0], (1.0, 1.0), *shape))

    def _take(self, place: int, margin: Margin) -> None:
        number = len(margin.x)
        knots, slopes, about = (getattr(self, name).view(torch.float64) for name in ("knots", "slopes", "about"))
        knots[:, place] = torch.inf
        knots[:, place, :number] = torch.tensor(np.stack([margin.x, margin.u]), device=knots.device)
        slopes[:, place, : number - 1] = torch.tensor(np.stack([margin.left, margin.right]), device=knots.device)
        about[:, place] = torch.tensor([*margin.tails, margin.center, margin.scale], device=knots.device)
        self.size[place] = number

    @torch.no_grad()
    def forward(self, x: Tensor) -> Scores:
        """Scores of numbers ``(*batch, column)``, each attribute of that shape, float64; they have no gradient."""
        step = self.step.view(torch.float64)
        lattice = step > 0
        safe = torch.where(lattice, step, 1.0)
        least = torch.where(lattice & self.positive, safe, -torch.inf)
        cell = torch.maximum(torch.round(x.double() / safe) * safe, least)
        value = torch.where(lattice, cell, x.float().double())
        half = step / 2
        ends = torch.stack([value - half, value + half])
        places = torch.stack([self._place(ends[0], right=False), self._place(ends[1], right=True)])
        (low, high), slope = self._score(ends, places)
        # The least point of a lattice of positive numbers takes all that lies below.
        low = torch.where(value <= 1.5 * least, low.clamp(max=-_INFINITE), low)
        interval = lattice | (places[1] - places[0] > 1)
        high = torch.where(interval, high, low)
        log_factor = torch.where(lattice, -safe.log(), torch.where(interval, 0.0, slope[0].log()))
        return Scores(low, high, (low + high) / 2, high - low, log_factor)

    def _score(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """g(x) and its derivative in the interval after a knot."""
        knot, u = self.knots.view(torch.float64)
        last = self.size - 1
        below, above = place < 0, place >= last
        index = torch.minimum(place.clamp(min=0), (last - 1).clamp(min=0)) + self._rows(knot)
        after = index + (last > 0)
        x0, x1, u0, u1 = knot.take(index), knot.take(after), u.take(index), u.take(after)
        d0, d1 = (slopes.take(index) for slopes in self.slopes.view(torch.float64))
        t, t0, t1 = self._transform(torch.stack([x, x0, x1]))
        inside = (t1 > t0) & ~below & ~above
        width = torch.where(inside, t1 - t0, 1.0)
        secant = torch.where(inside, (u1 - u0) / width, 1.0)
        share = ((t - t0) / width).clamp(0, 1)
        rest = share * (1 - share)
        bend = secant + (d0 + d1 - 2 * secant) * rest
        middle = u0 + (u1 - u0) * (secant * share**2 + d0 * rest) / bend
        slope = secant**2 * (d1 * share**2 + 2 * secant * rest + d0 * (1 - share) ** 2) / bend**2
        tails, _ = self.about.view(torch.float64).split(2)
        tail = torch.where(below, tails[0], tails[1])
        # Beyond the knots, one end of the interval is the first or the last of them.
        beyond = torch.where(below, u0, u1) + tail * (t - torch.where(below, t0, t1))
        outside = below | above
        return torch.where(outside, beyond, middle), torch.where(outside, tail, slope) * self._derivative(x)

    @torch.no_grad()
    def inverse(self, u: Tensor) -> Tensor:
        """Numbers of scores ``(*batch, column)``, float64: on the lattice, where there is one."""
        u = u.double()
        knot, score = self.knots.view(torch.float64)
        place, last = self._place(u, right=True, of=1), self.size - 1
        below, above = place < 0, place >= last
        index = torch.minimum(place.clamp(min=0), (last - 1).clamp(min=0)) + self._rows(knot)
        after = index + (last > 0)
        x0, x1, u0, u1 = knot.take(index), knot.take(after), score.take(index), score.take(after)
        d0, d1 = (slopes.take(index) for slopes in self.slopes.view(torch.float64))
        t0, t1 = self._transform(torch.stack([x0, x1]))
        rises = (t1 > t0) & (u1 > u0)
        width = torch.where(rises, t1 - t0, torch.ones_like(t0))
        height = torch.where(rises, u1 - u0, torch.ones_like(t0))
        secant = height / width
        d0, d1 = (torch.where(rises, d, secant) for d in (d0, d1))
        over = (u - u0).clamp(min=0)
        bend = over * (d0 + d1 - 2 * secant)
        a, b, c = height * (secant - d0) + bend, height * d0 - bend, -secant * over
        share = (2 * -c / (b + (b**2 - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        t = torch.where(rises, t0 + share * width, t0)
        tails, (center, scale) = self.about.view(torch.float64).split(2)
        beyond = torch.where(below, t0 + (u - u0) / tails[0], t1 + (u - u1) / tails[1])
        outside = below | above
        t = torch.where(outside, beyond, t).clamp(-80, 80)
        x = torch.where(self.positive, t.exp(), center + scale * t.sinh())
        x = torch.where(~outside & (x1 == x0), x0, x)
        return self._on_lattice(x, torch.where(outside, -torch.inf, x0), torch.where(outside, torch.inf, x1))

    def _on_lattice(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        step = self.step.view(torch.float64)
        lattice = step > 0
        safe = torch.where(lattice, step, torch.ones_like(step))
        inner = torch.minimum(torch.maximum(x, low + 1e-6 * safe), high - 1e-6 * safe)
        cell = torch.round(inner / safe)
        cell = torch.where(self.positive & (cell < 1), torch.ones_like(cell), cell) * safe
        return torch.where(lattice, cell, x.float().double())

    def _transform(self, x: Tensor) -> Tensor:
        center, scale = self.about.view(torch.float64)[2:]
        log = torch.where(self.positive, x, torch.ones_like(x)).clamp(min=1e-300).log()
        return torch.where(self.positive, log, torch.asinh((x - center) / scale))

    def _derivative(self, x: Tensor) -> Tensor:
        center, scale = self.about.view(torch.float64)[2:]
        positive = 1 / torch.where(self.positive, x, torch.ones_like(x)).clamp(min=1e-300)
        return torch.where(self.positive, positive, 1 / torch.sqrt((x - center) ** 2 + scale**2))

    @staticmethod
    def _rows(knots: Tensor) -> Tensor:
        """Position of the first knot of each column among all."""
        return torch.arange(knots.shape[0], device=knots.device) * knots.shape[1]

    def _place(self, values: Tensor, *, right: bool, of: int = 0) -> Tensor:
        """Knot below each value, or, without ``right``, strictly below; of x, or of scores where ``of`` is 1."""
        flat = torch.stack(values.reshape(-1, values.shape[-1]).unbind(-1))  # contiguous in compiled graphs as well
        found: Any = torch.searchsorted(self.knots.view(torch.float64)[of], flat, right=right) - 1
        return found.T.reshape(values.shape)
