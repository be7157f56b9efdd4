"""Tables whose columns are of different kinds: their schema, their numbers, and the distribution of a row."""

from vae_pyro.data.tables.inference import infer, parse_kind
from vae_pyro.data.tables.reading import Table, is_mixed, read_table
from vae_pyro.data.tables.schema import KINDS, Column, Schema

__all__ = ["KINDS", "Column", "Schema", "Table", "infer", "is_mixed", "parse_kind", "read_table"]
