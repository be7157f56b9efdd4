"""A table as numbers, and the schema that gives them their meaning."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vae_pyro.data.tables.cells import Mask, Values
from vae_pyro.data.tables.inference import Kinds, infer
from vae_pyro.data.tables.schema import Schema

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Table:
    """A table as numbers.

    Attributes:
        values: ``(datum, column)``, float64; NaN where there is no value.
        mask: of the same shape, true where there is one.
        schema: what the columns are.
    """

    values: Values
    mask: Mask
    schema: Schema


def encode(
    frame: "DataFrame", kinds: Kinds | None = None, *, schema: Schema | None = None, name: str = "the table"
) -> Table:
    """A pandas table as numbers.

    Args:
        frame: the table.
        kinds: kind by name of column, see `vae_pyro.data.tables.inference.infer`.
        schema: take the columns, their kinds and codes from here, and infer nothing.
        name: of the table, for messages.

    Raises:
        ValueError: no rows, ``kinds`` beside ``schema``, or see `infer` and `Schema.encode`.
    """
    if kinds and schema is not None:
        raise ValueError(f"kinds={dict(kinds)} and a schema exclude each other: the schema has the kinds")
    if len(frame) == 0:
        raise ValueError(f"{name} has no rows")
    schema = infer(frame, kinds) if schema is None else schema
    return Table(*schema.encode(frame), schema)
