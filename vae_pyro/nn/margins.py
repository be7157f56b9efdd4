"""Scores of the numbers of a table: monotone splines that are fixed from the training data, and their inverses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae_pyro.data.tables.margins import CAPACITY, UNBOUNDED, Margin, fit_margin, lattice_step
from vae_pyro.data.tables.schema import Column

_FIELDS = ("left_tail", "right_tail", "center", "scale")


@dataclass(frozen=True)
class Scores:
    """Where numbers stand among the scores; a point, or an interval that has the probability of a number.

    Attributes:
        low: lower end of the interval, or the point.
        high: upper end, or the point.
        middle: of both.
        width: of the interval, 0 for a point.
        log_factor: log of what a density or a probability of scores is multiplied by: the slope of the spline at a point;
            1 / step in an interval of a lattice, so that it is a density in the units of x, and 1 for other repeated values.
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

    Computations are in float64, whatever the type of the model: buffers hold the bits of float64 numbers as integers, which
    casts of the module leave as they are. Numbers off lattices are read with the digits of float32, in which data are held.

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

    def forward(self, x: Tensor) -> Scores:
        """Scores of numbers ``(*batch, column)``, each attribute of that shape, float64."""
        step = self.step.view(torch.float64)
        lattice = step > 0
        safe = torch.where(lattice, step, torch.ones_like(step))
        cell = torch.round(x.double() / safe)
        cell = torch.where(self.positive & (cell < 1), torch.ones_like(cell), cell) * safe
        value = torch.where(lattice, cell, x.float().double())
        low, slope, before = self._score(torch.where(lattice, value - safe / 2, value), right=False)
        high, _, after = self._score(torch.where(lattice, value + safe / 2, value), right=True)
        # The least point of a lattice of positive numbers takes all that lies below.
        least = lattice & self.positive & (value < 1.5 * safe)
        low = torch.where(least, low.clamp(max=-UNBOUNDED), low)
        interval = lattice | (after - before > 1)
        high = torch.where(interval, high, low)
        log_factor = torch.where(lattice, -safe.log(), torch.where(interval, torch.zeros_like(low), slope.log()))
        return Scores(low, high, (low + high) / 2, high - low, log_factor)

    def _score(self, x: Tensor, *, right: bool) -> tuple[Tensor, Tensor, Tensor]:
        """g(x), its derivative, and the knot below; where g jumps, its value from the right or from the left."""
        knot, u = self.knots.view(torch.float64)
        place = self._place(knot, x, right=right)
        below, above = place < 0, place >= self.size - 1
        index = place.clamp(min=0)
        index = torch.minimum(index, (self.size - 2).clamp(min=0))
        x0, x1 = self._at(knot, index), self._at(knot, torch.minimum(index + 1, self.size - 1))
        u0, u1 = self._at(u, index), self._at(u, torch.minimum(index + 1, self.size - 1))
        t, t0, t1 = self._transform(x), self._transform(x0), self._transform(x1)
        d0, d1 = (self._at(slopes, index) for slopes in self.slopes.view(torch.float64))
        inside = (t1 > t0) & ~below & ~above
        width = torch.where(inside, t1 - t0, torch.ones_like(t))
        secant = torch.where(inside, (u1 - u0) / width, torch.ones_like(t))
        share = ((t - t0) / width).clamp(0, 1)
        rest = share * (1 - share)
        bend = secant + (d0 + d1 - 2 * secant) * rest
        middle = u0 + (u1 - u0) * (secant * share**2 + d0 * rest) / bend
        slope = secant**2 * (d1 * share**2 + 2 * secant * rest + d0 * (1 - share) ** 2) / bend**2
        ends = self._ends(knot), self._ends(u)
        tails, _ = self.about.view(torch.float64).split(2)
        end = torch.where(below, ends[0][0], ends[0][1])
        tail = torch.where(below, tails[0], tails[1])
        beyond = torch.where(below, ends[1][0], ends[1][1]) + tail * (t - self._transform(end))
        outside = below | above
        return torch.where(outside, beyond, middle), torch.where(outside, tail, slope) * self._derivative(x), place

    def inverse(self, u: Tensor) -> Tensor:
        """Numbers of scores ``(*batch, column)``, float64: on the lattice, where there is one."""
        u = u.double()
        knot, score = self.knots.view(torch.float64)
        place = self._place(score, u, right=True)
        below, above = place < 0, place >= self.size - 1
        index = torch.minimum(place.clamp(min=0), (self.size - 2).clamp(min=0))
        after = torch.minimum(index + 1, self.size - 1)
        x0, x1, u0, u1 = self._at(knot, index), self._at(knot, after), self._at(score, index), self._at(score, after)
        t0, t1 = self._transform(x0), self._transform(x1)
        d0, d1 = (self._at(slopes, index) for slopes in self.slopes.view(torch.float64))
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
        (x_low, x_high), (u_low, u_high) = self._ends(knot), self._ends(score)
        tails, (center, scale) = self.about.view(torch.float64).split(2)
        beyond = torch.where(
            below,
            self._transform(x_low) + (u - u_low) / tails[0],
            self._transform(x_high) + (u - u_high) / tails[1],
        )
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

    def _ends(self, held: Tensor) -> tuple[Tensor, Tensor]:
        return held[:, 0], held.gather(1, (self.size - 1).unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def _at(held: Tensor, index: Tensor) -> Tensor:
        columns = torch.arange(held.shape[0], device=held.device)
        return held[columns, index]

    @staticmethod
    def _place(knots: Tensor, values: Tensor, *, right: bool) -> Tensor:
        """Interval of each value: the last knot at most as large or, without ``right``, the last one below."""
        flat = values.reshape(-1, values.shape[-1]).T.contiguous()
        found: Any = torch.searchsorted(knots, flat, right=right) - 1
        return found.T.reshape(values.shape)
