"""Tables from files and from what holds them in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_pyro.data.tables.cells import Mask, Values
from vae_pyro.data.tables.inference import Kinds, infer
from vae_pyro.data.tables.schema import Schema

if TYPE_CHECKING:
    from pandas import DataFrame

TABLE_SUFFIXES = (".csv", ".parquet")


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


def read_table(source: Any, kinds: Kinds | None = None, *, schema: Schema | None = None) -> Table:
    """Read a table, and what its columns are.

    Args:
        source: a pandas ``DataFrame``, a ``pyarrow.Table``, or the path of a ``.csv`` or ``.parquet`` file. In a csv
            file an empty cell and pandas' other words for it (``NA``, ``NaN``, ``null``, ...) are missing.
        kinds: kind by name of column, see `infer`.
        schema: take the columns, their kinds and codes from here (those of the data of a fit), and infer nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table, no rows, ``kinds`` beside ``schema``, or see `infer` and `Schema.encode`.
    """
    if kinds and schema is not None:
        raise ValueError(f"kinds={dict(kinds)} and a schema exclude each other: the schema has the kinds")
    frame = frame_of(source, schema)
    if len(frame) == 0:
        raise ValueError(f"{_name(source)} has no rows")
    if schema is None:
        schema = infer(frame, kinds)
    values, mask = schema.encode(frame)
    return Table(values, mask, schema)


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
        return _read(Path(source), schema)
    import pyarrow as pa

    if isinstance(source, pa.Table):
        return source.to_pandas()
    raise ValueError(f"a table is a DataFrame, a pyarrow.Table, or a path, got {type(source).__name__}")


def is_mixed(path: str | Path) -> bool:
    """Whether a file is a table with columns that are not numbers, which wants the likelihood ``table``.

    Raises:
        FileNotFoundError: a ``.csv`` or ``.parquet`` file that is not there.
        ValueError: one that cannot be read.
    """
    path = Path(path)
    if path.suffix not in TABLE_SUFFIXES or path.is_dir():
        return False
    frame = _read(path, None)
    return frame.select_dtypes("number").shape[1] < frame.shape[1]


def _read(path: Path, schema: Schema | None) -> "DataFrame":
    import pandas as pd

    if path.suffix not in TABLE_SUFFIXES:
        raise ValueError(f"cannot read {str(path)!r} as a table: expected {' or '.join(TABLE_SUFFIXES)}")
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        columns = () if schema is None else schema.columns
        text = {c.name: str for c in columns if c.categories and all(isinstance(level, str) for level in c.categories)}
        frame = pd.read_csv(path, dtype=text)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise ValueError(f"cannot read {str(path)!r}: {error}") from None
    names = [str(name) for name in frame.columns]
    if names and all(_is_number(name) for name in names):
        raise ValueError(
            f"{str(path)!r} begins with numbers where names of columns belong; add a header, or save a .npy"
        )
    return frame


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(source: Any) -> str:
    return repr(str(source)) if isinstance(source, str | Path) else "the table"
