"""Rows of zarr arrays and of parquet files, whose pieces can only be read whole."""

import hashlib
import threading
from abc import abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.data.sources import numeric_columns
from vae_pyro.data.streams.stores import Array, Store, check_rows, native, native_type

# Pieces that stay in memory once they are read, so that neighbouring reads do not decode them again.
_KEPT = 2
# Largest piece, decoded, that is taken: some of them are in memory at once.
_MOST_BYTES = 1 << 28
_DIGEST_PIECES = 16


class Chunks(Store):
    """Rows in pieces, of which the last two that were read are kept."""

    edges: Array

    def __init__(self) -> None:
        super().__init__()
        self._kept: OrderedDict[int, Array] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.edges[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _kept=OrderedDict(), _lock=threading.Lock())

    @abstractmethod
    def _decode(self, piece: int) -> Array:
        """All rows of one piece, in the type of `dtype`."""

    def _check_pieces(self, what: str, way_out: str) -> None:
        most = int(np.diff(self.edges).max()) * self.row_bytes
        if most > _MOST_BYTES:
            raise ValueError(
                f"{self.name} has {what} of {most / 2**20:.0f} MiB, which can only be read whole, and of which several "
                f"are in memory at once; {way_out} (at most {_MOST_BYTES >> 20} MiB)"
            )

    def _piece(self, piece: int) -> Array:
        with self._lock:
            if piece in self._kept:
                self._kept.move_to_end(piece)
                return self._kept[piece]
            found = self._decode(piece)
            self._kept[piece] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found

    def read(self, start: int, stop: int) -> Array:
        """See `vae_pyro.data.streams.stores.Store.read`."""
        found = np.empty((stop - start, *self.x_shape), self.dtype)
        first = int(np.searchsorted(self.edges, start, "right")) - 1
        at = start
        for piece in range(first, len(self.edges) - 1):
            if at >= stop:
                break
            begin, end = int(self.edges[piece]), min(int(self.edges[piece + 1]), stop)
            found[at - start : end - start] = self._piece(piece)[at - begin : end - begin]
            at = end
        return found

    def rows(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.rows`; each piece is read once."""
        found = np.empty((len(index), *self.x_shape), self.dtype)
        pieces = np.searchsorted(self.edges, index, "right") - 1
        for piece in np.unique(pieces).tolist():
            here = np.flatnonzero(pieces == piece)
            found[here] = self._piece(piece)[np.asarray(index)[here] - self.edges[piece]]
        return found

    def digest(self) -> str:
        """As `vae_pyro.data.streams.stores.Store.digest`, of 16 pieces: their first 64 rows."""
        digest = hashlib.sha256(repr((self.kind, self.edges.tolist()[-2:], self.x_shape, self.dtype.str)).encode())
        last = len(self.edges) - 2
        some = np.unique(np.r_[0, np.random.default_rng(0).integers(0, last + 1, _DIGEST_PIECES - 2), last])
        for piece in some.tolist():
            digest.update(np.ascontiguousarray(self._piece(piece)[:64]).tobytes())
        return digest.hexdigest()


class ZarrArray(Chunks):
    """A zarr array ``(datum, *x_shape)``, or a group with the array ``x`` and perhaps labels ``y``.

    Chunks (shards, where there are some) are read whole; chunks that divide a datum are joined.

    Args:
        path: of the folder.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no zarr in it, no numbers, chunks too large, or zarr is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.name = repr(str(path))
        if not Path(path).exists():
            raise FileNotFoundError(f"no zarr folder {self.name}")
        try:
            import zarr
        except ImportError:
            raise ValueError(f"{self.name} wants zarr; pip install 'vae_pyro[scale]'") from None
        try:
            opened: Any = zarr.open(str(path), mode="r")
        except Exception as error:
            raise ValueError(f"cannot read {self.name} as zarr: {error}") from None
        self._labels: Any = None
        self._array: Any = opened
        if isinstance(opened, zarr.Group):
            names = sorted(name for name, _ in opened.arrays())
            if "x" not in names:
                raise ValueError(f"{self.name} holds the arrays {', '.join(names) or 'none'}; name the data 'x'")
            self._array = opened["x"]
            self._labels = opened["y"] if "y" in names else None
        shape, dtype = tuple(self._array.shape), np.dtype(self._array.dtype)
        check_rows(self.name, shape, dtype)
        self.x_shape, self.dtype = shape[1:], native_type(dtype)
        rows = (getattr(self._array, "shards", None) or self._array.chunks)[0]
        self.edges = np.r_[np.arange(0, shape[0], rows), shape[0]]
        self._check_pieces("chunks", "write it with fewer rows in a chunk")
        self.labelled = self._labels is not None
        if self.labelled and (self._labels.shape != shape[:1] or self._labels.dtype.kind not in "bui"):
            raise ValueError(
                f"{self.name}: y is {self._labels.dtype} {self._labels.shape}, one integer for each of {shape[0]} "
                "rows of x is wanted"
            )

    def _decode(self, piece: int) -> Array:
        start, stop = self.edges[piece : piece + 2].tolist()
        try:
            return native(np.asarray(self._array[start:stop]))
        except Exception as error:
            raise ValueError(f"cannot read {self.name}, rows {start} to {stop}: {error}") from error

    def labels(self, index: Array) -> Array | None:
        """See `vae_pyro.data.streams.stores.Store.labels`; they are read whole once."""
        if not self.labelled:
            return None
        if not isinstance(self._labels, np.ndarray):
            self._labels = np.asarray(self._labels[:])
        found: Array = self._labels[index]
        return found


class ParquetFolder(Chunks):
    """The numeric columns of a parquet file, or of all in a folder, as float64, row group by row group.

    Args:
        path: of the file or the folder; its files are read in the order of their names.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no rows, no numeric column, files of different columns, row groups too large, or a broken file.
    """

    def __init__(self, path: str | Path) -> None:
        from pyarrow import ArrowException, parquet

        super().__init__()
        path = Path(path)
        self.name = repr(str(path))
        if not path.exists():
            raise FileNotFoundError(f"no file or folder {self.name}")
        self._files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        self._groups: list[tuple[int, int]] = []
        sizes: list[int] = []
        columns: list[str] = []
        left_out: list[str] = []
        for number, file in enumerate(self._files):
            try:
                metadata, schema = parquet.read_metadata(file), parquet.read_schema(file)
            except (ArrowException, OSError) as error:
                raise ValueError(f"cannot read {str(file)!r}: {error}") from None
            numeric, rest = numeric_columns(schema)
            if number == 0:
                columns, left_out = numeric, rest
            if numeric != columns:
                raise ValueError(
                    f"columns differ: {str(self._files[0])!r} has the numeric columns {_named(columns)}, {str(file)!r} "
                    f"has {_named(numeric)}; bring them to one schema"
                )
            for group in range(metadata.num_row_groups):
                if metadata.row_group(group).num_rows:
                    self._groups.append((number, group))
                    sizes.append(metadata.row_group(group).num_rows)
        if not columns or not sizes:
            raise ValueError(f"{self.name} has {sum(sizes)} rows and {_named(columns)} for numeric columns")
        self.columns = columns
        self.about = {"columns": columns, "columns_left_out": left_out}
        self.x_shape, self.dtype = (len(columns),), np.dtype(np.float64)
        self.edges = np.r_[0, np.cumsum(sizes)]
        self._check_pieces("row groups", "write it with a smaller row_group_size")

    def _decode(self, piece: int) -> Array:
        from pyarrow import ArrowException, parquet

        number, group = self._groups[piece]
        file = self._files[number]
        try:
            with parquet.ParquetFile(file) as opened:
                table = opened.read_row_group(group, columns=self.columns, use_threads=False)
            found = np.empty((table.num_rows, len(self.columns)))
            for place, column in enumerate(self.columns):
                found[:, place] = table.column(column).to_numpy()
        except (ArrowException, OSError, ValueError) as error:
            raise ValueError(f"cannot read {str(file)!r}, row group {group}: {error}") from error
        if len(found) != self.edges[piece + 1] - self.edges[piece]:
            raise ValueError(f"cannot read {str(file)!r}, row group {group}: the file has changed")
        return found


def _named(columns: list[str]) -> str:
    shown = ", ".join(columns[:8]) or "none"
    return shown if len(columns) <= 8 else f"{shown} and {len(columns) - 8} others"
