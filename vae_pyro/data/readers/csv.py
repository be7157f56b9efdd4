"""``.csv`` tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.reader import TableReader
from vae_pyro.data.tables.schema import Schema

if TYPE_CHECKING:
    from pandas import DataFrame


@READERS.register("csv")
class CsvReader(TableReader):
    """A table with a header; an empty cell and pandas' other words for it (``NA``, ``null``, ...) are missing."""

    expects = "a .csv file"
    suffixes = (".csv",)

    def frame(self, source: Path, schema: Schema | None = None) -> "DataFrame":
        import pandas as pd

        name = repr(str(source))
        columns = () if schema is None else schema.columns
        text = {c.name: str for c in columns if c.categories and all(isinstance(level, str) for level in c.categories)}
        try:
            frame = pd.read_csv(source, dtype=text)
        except FileNotFoundError:
            raise FileNotFoundError(f"no file {name}") from None
        except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
            raise ValueError(f"cannot read {name}: {error}") from None
        if len(frame.columns) and all(_is_number(str(column)) for column in frame.columns):
            raise ValueError(f"{name} begins with numbers where names of columns belong; add a header, or save a .npy")
        return frame


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
