"""Parquet files, and folders of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_pyro.data.facts import About
from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.chunks import Chunks
from vae_pyro.data.readers.reader import Auto, TableReader, require_finite
from vae_pyro.data.readers.store import Array, Store
from vae_pyro.data.tables.cells import listed
from vae_pyro.data.tables.inference import Kinds
from vae_pyro.data.tables.schema import Column, Schema
from vae_pyro.data.tables.units import MOST_COLUMNS, units_differ

if TYPE_CHECKING:
    from pandas import DataFrame


@READERS.register("parquet")
class ParquetReader(TableReader):
    """The numeric columns of a table, or of all files in a folder; its other columns too, where kinds are asked for."""

    expects = "a .parquet file or a folder of them"
    suffixes = (".parquet",)
    streams = True

    def recognises(self, source: Any) -> bool:
        """By the ending of a file, or of one in the folder."""
        if isinstance(source, Path) and source.is_dir():
            return next(source.rglob("*.parquet"), None) is not None
        return super().recognises(source)

    def open(self, source: Path) -> Store:
        return ParquetFolder(source)

    def open_columns(self, source: Path, kinds: Kinds | Auto | None, columns: Sequence[Column] | None) -> Store:
        """See `Reader.open_columns`; whether all columns are numbers is known before any is read.

        Folders, which may be larger than memory, and tables of more than 200 columns are not read for their units.
        """
        if kinds == "auto" and (source.is_dir() or _plain(_schema(source))):
            store = self.open(source)
            few = not source.is_dir() and store.x_shape[0] <= MOST_COLUMNS
            if not few or not units_differ(store.read(0, len(store))):
                return store
        return super().open_columns(source, kinds, columns)

    def frame(self, source: Path, schema: Schema | None = None) -> "DataFrame":
        import pandas as pd

        if source.is_dir():
            raise ValueError(f"folder {str(source)!r} is no single table; join its files, or take its numeric columns")
        _require(source)
        try:
            return pd.read_parquet(source)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise ValueError(f"cannot read {str(source)!r}: {error}") from None


class ParquetFolder(Chunks):
    """The numeric columns of a parquet file, or of all in a folder, as float64, row group by row group.

    Args:
        path: of the file or the folder; its files are read in the order of their names.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no rows, no numeric column, files of different columns, or a broken file.
    """

    pieces, way_out = "row groups", "write it with a smaller row_group_size"

    def __init__(self, path: str | Path) -> None:
        from pyarrow import parquet

        super().__init__()
        path = Path(path)
        self.name = repr(str(path))
        _require(path)
        self.prefers_streaming = path.is_dir()
        self._files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        self._groups: list[tuple[int, int]] = []
        sizes: list[int] = []
        columns: list[str] = []
        left_out: list[str] = []
        for number, file in enumerate(self._files):
            numeric, rest = numeric_columns(_schema(file))
            metadata = parquet.read_metadata(file)
            if number == 0:
                columns, left_out = numeric, rest
            if numeric != columns:
                raise ValueError(
                    f"columns differ: {str(self._files[0])!r} has the numeric columns {listed(columns)}, {str(file)!r} "
                    f"has {listed(numeric)}; bring them to one schema"
                )
            for group in range(metadata.num_row_groups):
                if metadata.row_group(group).num_rows:
                    self._groups.append((number, group))
                    sizes.append(metadata.row_group(group).num_rows)
        if not columns or not sizes:
            raise ValueError(f"{self.name} has {sum(sizes)} rows and {listed(columns) or 'no'} numeric columns")
        self._columns = tuple(columns)
        self.about = About(columns=self._columns, columns_left_out=tuple(left_out))
        self.x_shape, self.dtype = (len(columns),), np.dtype(np.float64)
        self.edges = np.r_[0, np.cumsum(sizes)]

    def _decode(self, piece: int) -> Array:
        from pyarrow import ArrowException, float64, parquet, types

        number, group = self._groups[piece]
        file = self._files[number]
        try:
            with parquet.ParquetFile(file) as opened:
                table = opened.read_row_group(group, columns=list(self._columns), use_threads=False)
            found = np.empty((table.num_rows, len(self._columns)))
            for place, name in enumerate(self._columns):
                column = table.column(name)
                found[:, place] = (column.cast(float64()) if types.is_decimal(column.type) else column).to_numpy()
        except (ArrowException, OSError, ValueError) as error:
            raise ValueError(f"cannot read {str(file)!r}, row group {group}: {error}") from error
        if len(found) != self.edges[piece + 1] - self.edges[piece]:
            raise ValueError(f"cannot read {str(file)!r}, row group {group}: the file has changed")
        require_finite(repr(str(file)), self._columns, found, int(self.edges[piece] - self._first_row(piece)))
        return found

    def _first_row(self, piece: int) -> int:
        """Row with which the file of a piece begins, among those of all files."""
        number = self._groups[piece][0]
        return int(self.edges[next(at for at, group in enumerate(self._groups) if group[0] == number)])


def _require(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}")


def _schema(file: Path) -> Any:
    """The Arrow schema of a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken.
    """
    from pyarrow import ArrowException, parquet

    _require(file)
    try:
        return parquet.read_schema(file)
    except (ArrowException, OSError) as error:
        raise ValueError(f"cannot read {str(file)!r}: {error}") from None


def _columns(schema: Any) -> list[Any]:
    """Fields of an Arrow schema that are columns: the index of a pandas table numbers its rows."""
    index = (schema.pandas_metadata or {}).get("index_columns", ())
    return [field for field in schema if field.name not in index]


def numeric_columns(schema: Any) -> tuple[list[str], list[str]]:
    """Numeric columns of an Arrow schema, and the others, which are left out."""
    from pyarrow import types

    is_number = (types.is_integer, types.is_floating, types.is_decimal)
    fields = _columns(schema)
    numeric = [field.name for field in fields if any(test(field.type) for test in is_number)]
    return numeric, [field.name for field in fields if field.name not in numeric]


def _plain(schema: Any) -> bool:
    """Whether all columns are integers and floating-point numbers."""
    from pyarrow import types

    return all(types.is_integer(field.type) or types.is_floating(field.type) for field in _columns(schema))
