"""Data formats, one a file, each entered in `READERS` by the module that reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_pyro.core.discovery import import_siblings
from vae_pyro.core.registry import Registry
from vae_pyro.core.regular import require_regular
from vae_pyro.data.readers.reader import Auto, Reader
from vae_pyro.data.readers.store import Store
from vae_pyro.data.tables.inference import Kinds
from vae_pyro.data.tables.schema import Column

READERS: Registry[Reader] = Registry("data format")

import_siblings(__name__)


def open_source(
    source: Any, *, kinds: Kinds | Auto | None = None, columns: Sequence[Column] | None = None, stream: bool = False
) -> Store:
    """The rows of a source, by the reader of its format.

    Args:
        source: a path, or an object with rows.
        kinds: of the columns of a table, see `Reader.open_columns`.
        columns: of a table, likewise.
        stream: whether the rows are to be read block by block.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no format that is known, contents that are not data, or rows that cannot be streamed.
    """
    source = Path(source) if isinstance(source, str) else source
    reader = reader_of(source)
    if stream and not reader.streams:
        raise ValueError(
            f"cannot stream {str(source)!r}: expected {expected(streams=True)}; save .npy, or load it whole with "
            "stream=False"
        )
    plain = kinds is None and columns is None
    store = reader.open(source) if plain else reader.open_columns(source, kinds, columns)
    if stream:
        store.require_streaming()
    return store


def reader_of(source: Any) -> Reader:
    """The reader of a source, a path or an object with rows.

    Raises:
        ValueError: no format that is known; or a pipe, socket or device.
    """
    if isinstance(source, Path):
        require_regular(source)
    readers = sorted((READERS[name]() for name in READERS), key=lambda reader: reader.general)
    for reader in readers:
        if reader.recognises(source):
            return reader
    raise ValueError(f"cannot read {str(source)!r}: expected {expected()}")


def expected(*, streams: bool = False) -> str:
    """Formats of files and folders, in words; those that can be streamed, where these alone are asked for."""
    readers = (READERS[name]() for name in READERS)
    known = [reader.expects for reader in readers if reader.paths and (reader.streams or not streams)]
    return f"{', '.join(known[:-1])}, or {known[-1]}"
