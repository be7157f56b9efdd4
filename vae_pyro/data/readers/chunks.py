"""Rows in pieces of which each can only be read whole."""

import hashlib
import threading
from abc import abstractmethod
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np

from vae_pyro.data.readers.store import Array, Store

# Pieces that stay in memory once they are read, so that neighbouring reads do not decode them again.
_KEPT = 2
# Largest piece, decoded, that is taken: some of them are in memory at once.
_MOST_BYTES = 1 << 28
_DIGEST_PIECES = 16


class Chunks(Store):
    """Rows in pieces, of which the last two that were read are kept.

    Attributes:
        pieces: what the pieces are called.
        way_out: what makes them smaller.
    """

    edges: Array
    pieces: ClassVar[str]
    way_out: ClassVar[str]

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

    @property
    def obstacle(self) -> str | None:
        """Pieces of which two or three fill the memory."""
        most = int(np.diff(self.edges).max()) * self.row_bytes
        if most <= _MOST_BYTES:
            return None
        return (
            f"{self.name} has {self.pieces} of {most / 2**20:.0f} MiB, which can only be read whole, and of which "
            f"several are in memory at once; {self.way_out} (at most {_MOST_BYTES >> 20} MiB)"
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
        """See `Store.rows`; each piece is read once."""
        found = np.empty((len(index), *self.x_shape), self.dtype)
        pieces = np.searchsorted(self.edges, index, "right") - 1
        for piece in np.unique(pieces).tolist():
            here = np.flatnonzero(pieces == piece)
            found[here] = self._piece(piece)[np.asarray(index)[here] - self.edges[piece]]
        return found

    def digest(self) -> str:
        """As `Store.digest`, of 16 pieces: their first 64 rows."""
        digest = hashlib.sha256(repr((self.kind, self.edges.tolist()[-2:], self.x_shape, self.dtype.str)).encode())
        last = len(self.edges) - 2
        some = np.unique(np.r_[0, np.random.default_rng(0).integers(0, last + 1, _DIGEST_PIECES - 2), last])
        for piece in some.tolist():
            digest.update(np.ascontiguousarray(self._piece(piece)[:64]).tobytes())
        return digest.hexdigest()
