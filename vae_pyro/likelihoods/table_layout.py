"""Layout of a table's row and of the decoder's output for it: pure bookkeeping, from the schema."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vae_pyro.data.tables.schema import KINDS, Schema

# Kinds with one location or logit for each column, in the order of the decoder's output.
_LOCATED = ("real", "positive", "count", "binary", "ordinal")


@dataclass(frozen=True)
class TableLayout:
    """Positions of columns and of decoder outputs.

    The decoder's output is one vector: locations of the real, positive and count columns, logits of the binary ones,
    locations of the ordinal ones, logits of the categories, and, where they are predicted, scales and dispersions.

    Args:
        schema: of the columns.
        dispersed: whether counts have a dispersion.
        predicted: whether scales and dispersions come from the decoder.
    """

    schema: Schema
    dispersed: bool
    predicted: bool

    @property
    def places(self) -> dict[str, list[int]]:
        """Positions of the columns of each kind, in the row."""
        columns = self.schema.columns
        return {kind: [k for k, column in enumerate(columns) if column.kind == kind] for kind in KINDS}

    @property
    def size(self) -> dict[str, int]:
        """Number of columns of each kind."""
        return {kind: len(chosen) for kind, chosen in self.places.items()}

    @property
    def num_scaled(self) -> int:
        """Number of columns with a scale."""
        return self.size["real"] + self.size["positive"]

    @property
    def num_dispersed(self) -> int:
        """Number of columns with a dispersion."""
        return self.size["count"] if self.dispersed else 0

    @property
    def widths(self) -> list[int]:
        """Numbers in each part of the decoder's output."""
        return [
            *(self.size[kind] for kind in _LOCATED),
            sum(self.classes("category")),
            self.num_scaled if self.predicted else 0,
            self.num_dispersed if self.predicted else 0,
        ]

    def classes(self, kind: str) -> list[int]:
        """Number of categories of each column of a kind."""
        return [self.schema.columns[k].num_classes for k in self.places[kind]]

    @property
    def order(self) -> Tensor:
        """Position of each column among those of all kinds, one kind after the other, ``(column,)``."""
        return torch.tensor([place for chosen in self.places.values() for place in chosen]).argsort()

    def logit_places(self) -> tuple[Tensor, Tensor]:
        """Positions of the logits of each category column among all logits of categories, and which do not exist.

        Returns:
            Integer and boolean, each ``(column, most categories)``: columns with fewer categories are filled up.
        """
        classes = self.classes("category")
        widest = max(classes, default=0)
        code = torch.arange(widest).expand(len(classes), widest)
        many = torch.tensor(classes, dtype=torch.int64).unsqueeze(-1)
        begin = many.cumsum(0) - many
        return torch.where(code < many, begin + code, 0), code >= many
