"""What a data format has to say: which sources are of it, and how one is opened."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from vae_pyro.data.facts import About
from vae_pyro.data.readers.arrays import ArrayStore
from vae_pyro.data.readers.store import Array, Store
from vae_pyro.data.tables.encoding import encode
from vae_pyro.data.tables.inference import Kinds
from vae_pyro.data.tables.schema import Column, Schema
from vae_pyro.data.tables.units import MOST_COLUMNS, units_differ

if TYPE_CHECKING:
    from pandas import DataFrame, Series


type Auto = Literal["auto"]


class Reader(ABC):
    """One data format.

    Attributes:
        expects: what the format is, as a message names it.
        suffixes: endings of its files.
        paths: whether its sources are paths.
        streams: whether its rows can be read block by block.
        general: whether it takes what others could take as well, and is asked after them.
    """

    expects: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    paths: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    general: ClassVar[bool] = False

    def recognises(self, source: Any) -> bool:
        """Whether a source, a path or an object, is of this format."""
        return isinstance(source, Path) and source.suffix in self.suffixes and not source.is_dir()

    @abstractmethod
    def open(self, source: Any) -> Store:
        """The numbers of a source.

        Raises:
            FileNotFoundError: no such file.
            ValueError: contents that are not data.
        """

    def open_columns(self, source: Any, kinds: Kinds | Auto | None, columns: Sequence[Column] | None) -> Store:
        """The columns of a table, of all kinds, as numbers.

        Args:
            source: see `open`.
            kinds: kind by name, where the inferred one is not meant (`vae_pyro.data.tables.inference.infer`); ``auto``
                infers kinds where some columns are no numbers or their units differ, and is `open` for other data.
            columns: take these, and infer nothing.

        Raises:
            FileNotFoundError: see `open`.
            ValueError: likewise; or no table; or columns that cannot be described.
        """
        if kinds != "auto" and isinstance(source, Path) and source.is_dir():
            raise no_table(source)
        return with_columns(source, self.open(source), kinds, columns)

    def frame(self, source: Any, schema: Schema | None = None) -> "DataFrame":
        """A table in pandas.

        Args:
            source: see `open`.
            schema: columns whose categories are text are read as text, also where a file holds digits alone.

        Raises:
            FileNotFoundError: see `open`.
            ValueError: no table.
        """
        raise ValueError(f"cannot read {str(source)!r} as a table: expected .csv or .parquet")


class TableReader(Reader):
    """A format of tables that are read whole."""

    @abstractmethod
    def frame(self, source: Path, schema: Schema | None = None) -> "DataFrame":
        """See `Reader.frame`."""

    def open(self, source: Path) -> Store:
        """The columns of numbers, as float64."""
        return numbers_of(source, self.frame(source))

    def open_columns(self, source: Path, kinds: Kinds | Auto | None, columns: Sequence[Column] | None) -> Store:
        """See `Reader.open_columns`; the file is read once."""
        schema = None if columns is None else Schema(columns=tuple(columns))
        frame = self.frame(source, schema)
        if kinds == "auto" and share_a_unit(frame):
            return numbers_of(source, frame)
        return described(source, frame, {} if kinds == "auto" else kinds, schema)


def share_a_unit(frame: "DataFrame") -> bool:
    """Whether all columns of a table are numbers of one unit, as far as their spreads tell."""
    numeric = frame.select_dtypes("number")
    return numeric.shape[1] == frame.shape[1] and not units_differ(numeric.to_numpy(np.float64, na_value=np.nan))


def with_columns(source: Any, store: Store, kinds: Kinds | Auto | None, columns: Sequence[Column] | None) -> Store:
    """Vectors of numbers in memory as the columns of a table, see `Reader.open_columns`; images are none.

    Raises:
        ValueError: columns are asked for, and the data are no such vectors; or see `described`.
    """
    vectors = len(store.x_shape) == 1 and store.top is None and store.matrix is None and not store.prefers_streaming
    if kinds == "auto" and not (
        vectors and store.x_shape[0] <= MOST_COLUMNS and units_differ(store.read(0, len(store)))
    ):
        return store
    if not vectors or store.test is not None:
        raise no_table(source)
    import pandas as pd

    names = store.about.columns or tuple(f"x[{place}]" for place in range(store.x_shape[0]))
    frame = pd.DataFrame(store.read(0, len(store)), columns=list(names))
    labels = store.labels(np.arange(len(store))) if store.labelled else None
    schema = None if columns is None else Schema(columns=tuple(columns))
    made = described(source, frame, {} if kinds == "auto" else kinds, schema, labels)
    made.name = store.name
    made.about = replace(made.about, classes=store.about.classes, factors=store.about.factors)
    return made


def no_table(source: Any) -> ValueError:
    """What is raised where columns of all kinds are asked of what has none."""
    return ValueError(
        f"kinds of columns and the likelihood 'table' require a table (.csv, .parquet), got {str(source)!r}; save it "
        "as one, or choose another likelihood"
    )


def numbers_of(path: Any, frame: "DataFrame", labels: Array | None = None) -> Store:
    """The columns of numbers of a table, without one that has no name and numbers the rows (the index of pandas).

    Raises:
        ValueError: no rows, no such column, or infinite numbers.
    """
    numeric = frame.select_dtypes("number")
    numeric = numeric.drop(columns=[name for name in numeric.columns if _numbers_rows(name, numeric[name])])
    if numeric.shape[1] == 0 or len(numeric) == 0:
        raise ValueError(f"{str(path)!r} has {len(frame)} rows and no numeric column")
    columns = tuple(str(name) for name in numeric.columns)
    about = About(
        columns=columns,
        columns_left_out=tuple(str(name) for name in frame.columns if name not in numeric.columns),
    )
    values = numeric.to_numpy(np.float64)
    require_finite(repr(str(path)), columns, values)
    return ArrayStore(repr(str(path)), values, labels, about=about)


def _numbers_rows(name: Any, column: "Series[Any]") -> bool:
    """Whether a column has no name in the file, for which pandas says ``Unnamed: 0``, and counts from 0 or 1."""
    if not str(name).startswith("Unnamed: ") or len(column) < 2:
        return False
    values = column.to_numpy(np.float64)
    return bool(values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values))))


def require_finite(name: str, columns: Sequence[str], values: Array, start: int = 0) -> None:
    """Refuse infinite numbers of a table.

    Args:
        name: of the source.
        columns: their names.
        values: ``(datum, column)``; NaN is missing.
        start: row of the source in which they begin.

    Raises:
        ValueError: the message names the column and the row of the first, and the number of all.
    """
    wrong = np.isinf(values)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"{name}: {wrong.sum()} values are not finite, the first {values[row, column]} in column "
            f"{columns[column]!r}, row {start + row}; replace them, or make them missing"
        )


def described(
    path: Any, frame: "DataFrame", kinds: Kinds | None, schema: Schema | None, labels: Array | None = None
) -> Store:
    """Columns of all kinds, with the schema that codes them.

    Raises:
        ValueError: see `vae_pyro.data.tables.encoding.encode`.
    """
    table = encode(frame, kinds, schema=schema, name=repr(str(path)))
    about = About(columns=tuple(table.schema.names), columns_left_out=tuple(table.schema.left_out), schema=table.schema)
    return ArrayStore(repr(str(path)), table.values, labels, mask=None if table.mask.all() else table.mask, about=about)
