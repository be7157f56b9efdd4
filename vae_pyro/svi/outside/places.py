"""Places of Python values, and when two values are the same."""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch

ABSENT: Any = object()
CELL: Any = object()
NUMBERS = (float, np.floating)
"""Types of floating-point numbers that may become inputs of a program."""
ATOMS = (bool, int, float, complex, str, bytes, np.generic, type(None), Enum, torch.dtype, torch.device, torch.Size)


@dataclass(frozen=True)
class Place:
    """Where a value stands: an entry of a dictionary, or a cell of a closure.

    Attributes:
        holder: the dictionary (of globals, of an object's attributes), or the cell.
        key: of the dictionary; `CELL` for a cell.
        label: for messages, such as ``model.beta``.
        value: that was found there.
    """

    holder: Any
    key: Any
    label: str
    value: Any

    def get(self) -> Any:
        """What stands there now."""
        if self.key is CELL:
            try:
                return self.holder.cell_contents
            except ValueError:  # an empty cell
                return ABSENT
        return self.holder.get(self.key, ABSENT)

    def set(self, value: Any) -> None:
        """Put a value there."""
        if self.key is CELL and value is ABSENT:
            del self.holder.cell_contents
        elif self.key is CELL:
            self.holder.cell_contents = value
        elif isinstance(self.holder, types.MappingProxyType):
            return  # an attribute of a class: nothing is written there
        elif value is ABSENT:
            self.holder.pop(self.key, None)
        else:
            self.holder[self.key] = value

    @property
    def is_number(self) -> bool:
        """Whether a floating-point number stands there, which a program can take as an input."""
        return isinstance(self.value, NUMBERS) and not isinstance(self.holder, types.MappingProxyType)


def equal(now: Any, value: Any) -> bool:
    """Whether two plain values are the same; everything else is known by its identity."""
    if type(now) is not type(value) or not isinstance(value, ATOMS):
        return False
    same: bool = now == value or (isinstance(value, float) and math.isnan(now) and math.isnan(value))
    return same


def same(now: Any, value: Any) -> bool:
    return now is value or equal(now, value)


def same_items(held: list[Any], items: tuple[Any, ...]) -> bool:
    return len(held) == len(items) and all(a is b or equal(a, b) for a, b in zip(held, items, strict=True))


def set_entries(table: dict[Any, Any], entries: Mapping[Any, Any]) -> None:
    """Give a dictionary its entries again; one that has them, by their identity, is left."""
    if len(table) != len(entries) or any(table.get(key, ABSENT) is not value for key, value in entries.items()):
        table.clear()
        table.update(entries)
