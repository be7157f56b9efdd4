"""zarr arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.chunks import Chunks
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Array, Store, check_rows, native, native_type

_FILES = ("zarr.json", ".zarray", ".zgroup")


@READERS.register("zarr")
class ZarrReader(Reader):
    """An array ``(datum, *x_shape)``, or a group with the array ``x`` and perhaps labels ``y``."""

    expects = "a zarr folder"
    streams = True

    def recognises(self, source: Any) -> bool:
        """By the ending, or the files inside."""
        return isinstance(source, Path) and (
            source.suffix == ".zarr" or any((source / name).is_file() for name in _FILES)
        )

    def open(self, source: Path) -> Store:
        return ZarrArray(source)


class ZarrArray(Chunks):
    """A zarr array ``(datum, *x_shape)``, or a group with the array ``x`` and perhaps labels ``y``.

    Chunks (shards, where there are some) are read whole; chunks that divide a datum are joined.

    Args:
        path: of the folder.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no zarr in it, no numbers, or zarr is not installed.
    """

    prefers_streaming = True
    pieces, way_out = "chunks", "write it with fewer rows in a chunk"

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.name = repr(str(path))
        if not Path(path).exists():
            raise FileNotFoundError(f"no zarr folder {self.name}")
        try:
            import zarr
        except ImportError:
            raise ValueError(f"{self.name} requires zarr; pip install 'vae_pyro[scale]'") from None
        try:
            opened: Any = zarr.open(str(path), mode="r")
        except Exception as error:
            raise ValueError(f"cannot read {self.name} as zarr: {error}") from None
        self._labels: Any = None
        self._complete = False
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
        self.labelled = self._labels is not None
        if self.labelled and (self._labels.shape != shape[:1] or self._labels.dtype.kind not in "bui"):
            raise ValueError(
                f"{self.name}: y is {self._labels.dtype} {self._labels.shape}, expected is one integer for each of the "
                f"{shape[0]} rows of x"
            )

    def _require_complete(self) -> None:
        """Refuse an array of which chunks are lost, which zarr would read as the fill value; looked up once."""
        if self._complete:
            return
        for name, array in (("x", self._array), ("y", self._labels)):
            if array is None or isinstance(array, np.ndarray):
                continue
            there, all_of_them = array.nchunks_initialized, array.nchunks
            if there < all_of_them:
                raise ValueError(
                    f"{self.name} has {there} of the {all_of_them} chunks of {name}, and the others would be read as "
                    f"{array.fill_value}: copy it anew; or, where that is what they hold, write it with the option "
                    "write_empty_chunks"
                )
        self._complete = True

    def _decode(self, piece: int) -> Array:
        self._require_complete()
        start, stop = self.edges[piece : piece + 2].tolist()
        try:
            return native(np.asarray(self._array[start:stop]))
        except Exception as error:
            raise ValueError(f"cannot read {self.name}, rows {start} to {stop}: {error}") from error

    def labels(self, index: Array) -> Array | None:
        """See `Store.labels`; they are read whole once."""
        if not self.labelled:
            return None
        if not isinstance(self._labels, np.ndarray):
            self._require_complete()
            self._labels = np.asarray(self._labels[:])
        found: Array = self._labels[index]
        return found
