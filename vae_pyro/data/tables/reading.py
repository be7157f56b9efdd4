"""Tables from files and from what holds them in memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_pyro.data.readers import reader_of
from vae_pyro.data.tables.encoding import Table, encode
from vae_pyro.data.tables.inference import Kinds
from vae_pyro.data.tables.schema import Schema

if TYPE_CHECKING:
    from pandas import DataFrame


def read_table(source: Any, kinds: Kinds | None = None, *, schema: Schema | None = None) -> Table:
    """Read a table, and what its columns are.

    Args:
        source: a ``DataFrame`` of pandas or polars, a ``pyarrow.Table``, or the path of a ``.csv`` or ``.parquet``
            file. In a csv file an empty cell and pandas' other words for it (``NA``, ``NaN``, ``null``, ...) are
            missing.
        kinds: kind by name of column, see `vae_pyro.data.tables.inference.infer`.
        schema: take the columns, their kinds and codes from here (those of the data of a fit), and infer nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table, or see `vae_pyro.data.tables.encoding.encode`.
    """
    name = repr(str(source)) if isinstance(source, str | Path) else "the table"
    return encode(frame_of(source, schema), kinds, schema=schema, name=name)


def frame_of(source: Any, schema: Schema | None = None) -> "DataFrame":
    """A table in pandas.

    Args:
        source: see `read_table`.
        schema: columns whose categories are text are read as text, also where a file holds digits alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, str | Path):
        return reader_of(Path(source)).frame(Path(source), schema)
    if is_frame(source):
        import pyarrow as pa

        return (source if isinstance(source, pa.Table) else pa.table(source)).to_pandas()
    raise ValueError(f"a table is a DataFrame, a pyarrow.Table, or a path, got {type(source).__name__}")


def is_frame(source: Any) -> bool:
    """Whether an object is a table in memory: of pandas, or one that gives Arrow's columns, as those of polars do."""
    return hasattr(source, "columns") and hasattr(source, "__arrow_c_stream__")
