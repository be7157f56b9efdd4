"""``.csv`` tables."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.reader import TableReader
from vae_pyro.data.tables.cells import repeated
from vae_pyro.data.tables.schema import Schema

if TYPE_CHECKING:
    from pandas import DataFrame

# Separators that files have in place of commas, and what they are called.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@READERS.register("csv")
class CsvReader(TableReader):
    """A table with a header; an empty cell and pandas' other words for it (``NA``, ``null``, ...) are missing."""

    expects = "a .csv file"
    suffixes = (".csv",)

    def frame(self, source: Path, schema: Schema | None = None) -> "DataFrame":
        import pandas as pd

        name = repr(str(source))
        header = _header(source, name)
        columns = () if schema is None else schema.columns
        text = {c.name: str for c in columns if c.categories and all(isinstance(level, str) for level in c.categories)}
        try:
            frame = pd.read_csv(source, dtype=text)
        except FileNotFoundError:
            raise FileNotFoundError(f"no file {name}") from None
        except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
            raise ValueError(f"cannot read {name}: {str(error).strip()}") from None
        if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first columns for names of the rows
            raise ValueError(_too_many(source, name, header))
        if frame.shape[1] and frame.iloc[:, -1].isna().any():  # where a row is short, its last value is missing
            _require_complete(source, name, len(header))
        unnamed = [column for column, title in zip(frame.columns, header, strict=False) if not title.strip()]
        frame = frame.drop(columns=[column for column in unnamed if frame[column].isna().all()])
        if len(frame.columns) and all(_is_number(str(column)) for column in frame.columns):
            raise ValueError(f"{name} begins with numbers where names of columns belong; add a header, or save a .npy")
        return frame


def _header(source: Path, name: str) -> list[str]:
    """Names of the columns.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another separator than a comma, or a name that comes twice.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next((row for row in rows if row), [])
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {name}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"cannot read {name}: {error}") from None
    if len(header) == 1:
        found = max(_SEPARATORS, key=header[0].count)
        if found in header[0]:
            raise ValueError(
                f"{name} is separated by {_SEPARATORS[found]} ({found!r}), expected are commas; write it anew, as with "
                f"pandas.read_csv(path, sep={found!r}).to_csv(path, index=False)"
            )
    twice = repeated([title for title in header if title.strip()])
    if twice is not None:
        raise ValueError(f"{name}: two columns are called {twice!r}; rename one")
    return header


def _too_many(source: Path, name: str, header: list[str]) -> str:
    """Which row has more fields than the header, in words."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        lengths = ((rows.line_num, len(row)) for row in rows if row)
        line, fields = next(((line, fields) for line, fields in lengths if fields > len(header)), (2, len(header) + 1))
    return (
        f"{name}, line {line}: {fields} fields under a header of {len(header)}, so that values would stand in the "
        "wrong columns; give each column a name, or take out the commas at the ends of the rows"
    )


def _require_complete(source: Path, name: str, width: int) -> None:
    """Refuse rows with fewer fields than the header, whose last values pandas would take for missing.

    Raises:
        ValueError: the message names the line of the first.
    """
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            short = next(((rows.line_num, len(row)) for row in rows if row and len(row) < width), None)
        except csv.Error:  # a field of more than 128 KiB, which pandas takes
            return
    if short is not None:
        raise ValueError(
            f"{name}, line {short[0]}: {short[1]} fields under a header of {width}; complete the row, with an empty "
            "field between two commas for each value that is missing"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
