"""Features of a table's row that an encoder reads: numbers of order one and indicators, zero where unobserved."""

import torch
from torch import Tensor

from vae_pyro.data.tables.schema import CONTINUOUS, KINDS, Column, Schema
from vae_pyro.nn.features import Features, masked_moments
from vae_pyro.nn.margins import Margins

_NUMBERS = ("real", "positive", "count")
_MOST_EXTREME = 5.0


class TableFeatures(Features):
    """Row ``(*batch, column)`` -> ``(*batch, feature)``.

    Real columns are standardised, positive ones as logarithms, counts as ``log(1 + x)``; a binary column is -1 or 1; an
    ordinal column has one feature for each step between categories, 1 where its code is above it and -1 where it is
    below; a category has an indicator for each of its values. So no value that is observed looks like one that is not.

    With margins, real and positive columns are standardised scores instead, cut off at ±5.

    Args:
        schema: of the columns.
        margins: fit the margins of real and positive columns.

    Attributes:
        margins: of real and positive columns, one after the other; ``None`` without.
        loc: mean of the numbers, as they are transformed, in the order of the features; ``(number,)``.
        scale: their standard deviation; 1 for a constant.
        fill: a value in the support of each column, near its centre; ``(column,)``.
        places: columns of each kind.
    """

    loc: Tensor
    scale: Tensor
    fill: Tensor
    source: Tensor
    level: Tensor

    def __init__(self, schema: Schema, *, margins: bool = False) -> None:
        super().__init__((len(schema.columns),))
        self.places = {kind: [k for k, c in enumerate(schema.columns) if c.kind == kind] for kind in KINDS}
        source: list[int] = []
        level: list[int] = []
        self.sizes: list[int] = []
        for places in self.places.values():
            before = len(source)
            for place in places:
                levels = _levels(schema.columns[place])
                source += [place] * len(levels)
                level += levels
            self.sizes.append(len(source) - before)
        self.feature_shape = (len(source),)
        self.num_numbers = sum(len(self.places[kind]) for kind in _NUMBERS)
        scored = [schema.columns[place] for kind in CONTINUOUS for place in self.places[kind]]
        self.margins = Margins(scored) if margins and scored else None
        positive = [float(column.kind == "positive") for column in schema.columns]
        self.register_buffer("loc", torch.zeros(self.num_numbers))
        self.register_buffer("scale", torch.ones(self.num_numbers))
        self.register_buffer("fill", torch.tensor(positive))  # log 1 = 0
        self.register_buffer("source", torch.tensor(source, dtype=torch.int64), persistent=False)
        self.register_buffer("level", torch.tensor(level, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return self.transform(x)
        features = self.transform(torch.where(mask, x, self.fill))
        return torch.where(self.spread(mask), features, torch.zeros_like(features))

    def transform(self, x: Tensor) -> Tensor:
        cells = x.index_select(-1, self.source)
        numbers, codes = cells.tensor_split([self.num_numbers], -1)
        binary, steps, indicators = codes.split(self.sizes[3:], -1)
        of_steps, of_indicators = self.level[self.num_numbers + self.sizes[3] :].split(self.sizes[4:])
        return torch.cat(
            [
                (self._scaled(numbers) - self.loc) / self.scale,
                2 * binary - 1,
                2 * (steps >= of_steps).to(x.dtype) - 1,
                (indicators == of_indicators).to(x.dtype),
            ],
            -1,
        )

    def spread(self, mask: Tensor) -> Tensor:
        return mask.index_select(-1, self.source)

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Take the statistics of the numbers from ``x`` of shape ``(datum, column)`` where ``observed`` is true."""
        source = self.source[: self.num_numbers]
        if self.margins is not None:
            scored = source[: sum(self.sizes[:2])]
            self.margins.fit(x.index_select(-1, scored), observed.index_select(-1, scored))
        known = observed.index_select(-1, source)
        cells = torch.where(observed, x, self.fill.to(x.dtype)).index_select(-1, source).double()
        loc, variance = masked_moments(self._scaled(cells), known, [0])
        self.loc.copy_(loc)
        scale = variance.sqrt()
        self.scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))
        real, positive, count = loc.split(self.sizes[:3])
        if self.margins is not None:
            middle = self.margins.inverse(torch.zeros_like(torch.cat([real, positive])))
            real, positive = middle[: len(real)], middle[len(real) :].log()
        self.fill[source] = torch.cat([real, positive.exp(), count.expm1().clamp(min=0).round()]).to(self.fill.dtype)

    def _scaled(self, numbers: Tensor) -> Tensor:
        """Numbers on the scale on which they are standardised."""
        real, positive, count = numbers.split(self.sizes[:3], -1)
        if self.margins is not None:
            scores = self.margins(torch.cat([real, positive], -1)).middle.clamp(-_MOST_EXTREME, _MOST_EXTREME)
            return torch.cat([scores.to(numbers.dtype), count.log1p()], -1)
        return torch.cat([real, positive.log(), count.log1p()], -1)


def _levels(column: Column) -> list[int]:
    """The codes that the features of a column compare with; one for each feature."""
    if column.kind == "category":
        return list(range(column.num_classes))
    if column.kind == "ordinal":
        return list(range(1, column.num_classes))
    return [0]
