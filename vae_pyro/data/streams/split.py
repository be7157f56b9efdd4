"""Splits of data that are not in memory: read block by block, ahead of the step that wants them."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import WHOLE, Draw, Given, Part, Split, Words
from vae_pyro.data.streams.chunks import ParquetFolder, ZarrArray
from vae_pyro.data.streams.shares import Between, Changed
from vae_pyro.data.streams.stores import Array, ArrayFile, Extent, ImageFolder, Store
from vae_pyro.data.streams.windows import Order, windows
from vae_pyro.data.summary import DataSummary

_SAMPLED_PIECES = 256
_PIECES, _ROWS, _MIXED = 1, 2, 3
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")


class StreamedSplit(Split):
    """Data of one split that stay where they are kept; a `Split` whose values are read when they are asked for.

    ``fit``, ``evaluate``, ``elpd_of`` and whatever asks for data by `epoch` or by `batch` work block by block; what
    needs all values at once takes some first (`take`, `sample`), or raises and says so. Memory does not grow with the
    number of data, but for results of one number a datum, and for `labels` and `ids` where they are asked for.

    Args:
        store: of the rows.
        top: as for `Split`; likewise ``draw`` and ``space``.
        device: where batches are handed out.
    """

    store: Store

    def __init__(
        self,
        store: Store,
        *,
        top: float | None = None,
        draw: Draw = "none",
        space: str = "the values as given",
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in {
            "store": store,
            "top": top,
            "draw": draw,
            "space": space,
            "_device": torch.device(device),
        }.items():
            object.__setattr__(self, name, value)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"StreamedSplit({self.store.name}, {len(self)} data of shape {self.x_shape}, {self.space})"

    def __len__(self) -> int:
        return len(self.store)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of one datum."""
        return self.store.x_shape

    @property
    def resident(self) -> bool:
        """They are not."""
        return False

    @property
    def values(self) -> NoReturn:
        """Not there.

        Raises:
            ValueError: always, with the way out.
        """
        raise ValueError(
            f"{self.store.name} is streamed, and this wants all its values in memory; pass a part of it, such as "
            "split.take(slice(1000)) or split.sample(1000, seed=0)"
        )

    @property
    def mask(self) -> None:
        """None: everything is observed."""
        return None

    @property
    def y(self) -> None:
        """None: streamed data are given to the programs without labels."""
        return None

    @property
    def labels(self) -> Tensor | None:
        """Labels of all data, ``(datum,)``, read at each call; ``None`` where there are none."""
        return self._labels(np.arange(len(self))) if self.store.labelled else None

    @property
    def ids(self) -> Tensor:
        """Row of each datum in its source, ``(datum,)``, made at each call."""
        return torch.from_numpy(self.store.ids(np.arange(len(self))))

    @property
    def head(self) -> Tensor:
        """See `Split.head`."""
        return torch.from_numpy(self.store.read(0, 1)).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where batches are handed out."""
        device: torch.device = vars(self)["_device"]
        return device

    def _labels(self, index: Array) -> Tensor | None:
        found = self.store.labels(index)
        return None if found is None else torch.from_numpy(np.ascontiguousarray(found)).to(self.device)

    def _values(self, index: Tensor | slice) -> tuple[Tensor, Array]:
        """Some rows as they are stored, on the device, and their numbers."""
        if isinstance(index, slice):
            rows = np.arange(*index.indices(len(self)))
        else:
            rows = np.asarray(index.cpu())
            rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
            rows = np.where(rows < 0, rows + len(self), rows)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are wanted of {len(self)}")
        if isinstance(index, slice) and index.step in (None, 1) and len(rows):
            found = self.store.read(int(rows[0]), int(rows[-1]) + 1)
        else:
            found = self.store.rows(rows)
        return torch.from_numpy(found).to(self.device), rows

    def batch(self, index: Tensor | slice, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Given]:
        """See `Split.batch`; reads just these rows."""
        x = self._values(index)[0].to(dtype)
        return self._observe(x, torch.rand_like(x) if self.draw != "none" else x), {}

    def raw(self, index: Tensor, bits: Words) -> tuple[Tensor, ...]:
        """See `Split.raw`; reads just these rows, one by one where they are far apart. `epoch` reads far faster."""
        return self._with_bits(self._values(index)[0], bits)

    def _with_bits(self, values: Tensor, bits: Words) -> tuple[Tensor, ...]:
        if self.draw == "none":
            return (values,)
        return values, bits(values.numel()).view(values.shape).to(values.device)

    def epoch(
        self, batch_size: int, seed: int, bits: Words, *, start: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, ...]]:
        """Raw batches of one epoch, each datum once, in the order of `vae_pyro.data.streams.windows.Order`.

        Arguments and results are those of `Split.epoch`. The next window is read in the background while one is used;
        windows before batch ``start`` are not read. Every process of several reads all windows, and takes its part of
        each batch.

        Raises:
            ValueError: what reading raised.
        """
        size, width = len(self), prod(self.x_shape)
        numbers = range(start, ceil(size / batch_size))
        if self.draw != "none":
            for number in range(min(start, ceil(size / batch_size))):
                begin, end = part.bounds(min(batch_size, size - number * batch_size))
                bits((end - begin) * width)
        if not numbers:
            return
        order = Order(self.store, seed)
        first = order.window_of(start * batch_size)
        ahead = windows(self.store, order, first, self.device)
        low = high = int(order.bounds[first])
        values = index = torch.empty(0)
        try:
            for number in numbers:
                begin, end = part.bounds(min(batch_size, size - number * batch_size))
                begin, end = number * batch_size + begin, number * batch_size + end
                pieces: list[Tensor] = []
                while True:
                    if begin < high:
                        pieces.append(values.index_select(0, index[begin - low : min(end, high) - low]))
                        begin = min(end, high)
                    if end <= high and pieces:
                        break
                    values, index = next(ahead)
                    low, high = high, high + len(index)
                yield self._with_bits(pieces[0] if len(pieces) == 1 else torch.cat(pieces), bits)
        finally:
            ahead.close()  # type: ignore[attr-defined]

    def fixed(self, seed: int) -> "StreamedSplit":
        """See `Split.fixed`: the same bits, drawn again at each reading, for the place of each is known.

        A float32 of NumPy's takes one half of a 64-bit output of PCG64, the lower one first, and PCG64 jumps to any
        output (`numpy.random.PCG64.advance`).
        """
        if self.draw == "none":
            return self
        binary = self.draw == "binarize"
        if binary:
            extent = Extent(0.0, 1.0, True)
        else:
            summary = self.summary()
            extent = Extent(summary.low, summary.high, False)
        store = Changed(
            self.store,
            partial(_drawn, split=self, seed=seed),
            dtype=np.uint8 if binary else np.float32,
            extent=extent,
            about=f"{self.draw} top={self.top} seed={seed}",
        )
        return StreamedSplit(store, space=self.space, device=self.device)

    def to(self, device: torch.device) -> "StreamedSplit":
        """The same data, handed out on another device."""
        return StreamedSplit(self.store, top=self.top, draw=self.draw, space=self.space, device=device)

    def take(self, index: Tensor | slice) -> Split:
        """Some of the data, in memory."""
        values, rows = self._values(index)
        labels = self._labels(rows) if self.store.labelled else None
        ids = torch.from_numpy(self.store.ids(rows))
        return Split(values, labels, ids, None, self.top, self.draw, self.space)

    def between(self, start: int, stop: int) -> "StreamedSplit":
        """See `Split.between`; they stay where they are."""
        store = Between(self.store, start, min(stop, len(self)))
        return StreamedSplit(store, top=self.top, draw=self.draw, space=self.space, device=self.device)

    def sample(self, count: int, seed: int) -> Split:
        """So many data, or all where there are fewer, in memory and in a random order.

        They come from 256 blocks of the data, chosen at random, as evenly as can be: neither all blocks are read nor
        one row of each.
        """
        size = len(self)
        order = np.random.default_rng(derive_seed(seed, _MIXED))
        if count >= size:
            return self.take(torch.from_numpy(order.permutation(size)))
        edges = self.store.edges
        if edges is None:
            edges = np.r_[np.arange(0, size, min(self.store.block, max(size // _SAMPLED_PIECES, 1))), size]
        pieces = np.random.default_rng(derive_seed(seed, _PIECES)).permutation(len(edges) - 1)
        rows = np.random.default_rng(derive_seed(seed, _ROWS))
        lengths = np.diff(edges)[pieces]
        # As many blocks as hold the count, and 256 if there are so many.
        used = max(min(_SAMPLED_PIECES, len(pieces)), int(np.searchsorted(np.cumsum(lengths), count)) + 1)
        quota = _shared_out(count, lengths[:used])
        chosen = np.concatenate(
            [edges[piece] + rows.permutation(length)[:some]
             for piece, length, some in zip(pieces[:used], lengths[:used], quota, strict=True)]
        )  # fmt: skip
        return self.take(torch.from_numpy(order.permutation(np.sort(chosen))))

    def summary(self) -> DataSummary:
        """See `Split.summary`; the range is that of the whole source, of which one pass is made, once.

        Of bytes that are divided by 255 or binarised it is known without one.

        Raises:
            ValueError: a value is not finite; the message counts them and names the first.
        """
        if self.top is not None and self.store.dtype == np.uint8 and self.top == self.store.top:
            return self._summary(0.0, self.top, True, self.draw == "none" and self.store.two_levels)
        extent = self.store.extent
        return self._summary(extent.low, extent.high, extent.integral, self.top is not None and self.store.two_levels)

    def feed(self, digest: "hashlib._Hash") -> None:
        """See `Split.feed`; what it covers stands at `vae_pyro.data.streams.stores.Store.digest`."""
        digest.update(b"|" + self.store.digest().encode())


def _drawn(values: Array, index: Array, *, split: StreamedSplit, seed: int) -> Array:
    """Observations of a split's data with the noise that belongs to their rows."""
    noise, width = np.empty(values.shape, np.float32), prod(split.x_shape)
    for run in np.split(np.arange(len(index)), np.flatnonzero(np.diff(index) != 1) + 1):
        if len(run):
            first, count = int(index[run[0]]) * width, len(run) * width
            noise[run[0] : run[-1] + 1] = uniform(seed, first, count).reshape(len(run), *split.x_shape)
    x = split._observe(torch.from_numpy(values).to(torch.float32), torch.from_numpy(noise))
    return (x.to(torch.uint8) if split.draw == "binarize" else x).numpy()


def _shared_out(count: int, lengths: Array) -> list[int]:
    """Shares of ``count``, as equal as lengths allow."""
    quota, left, places = np.zeros(len(lengths), np.int64), count, np.argsort(lengths, kind="stable")
    for done, place in enumerate(places.tolist()):
        quota[place] = min(int(lengths[place]), left // (len(places) - done))
        left -= int(quota[place])
    for place in places[::-1].tolist():  # the largest take what rounding left
        extra = min(left, int(lengths[place] - quota[place]))
        quota[place] += extra
        left -= extra
    return [int(some) for some in quota]


def uniform(seed: int, start: int, count: int) -> Array:
    """Numbers ``start`` to ``start + count`` of ``numpy.random.default_rng(seed).random(dtype=float32)``."""
    generator = np.random.PCG64(seed)
    generator.advance(start // 2)
    words = generator.random_raw((start + count + 1) // 2 - start // 2).astype("<u8", copy=False).view("<u4")
    return (words[start % 2 :][:count] >> 8) * np.float32(2.0**-24)


def open_store(path: str | Path) -> Store:
    """A ``.npy`` file, a zarr folder, a parquet file or a folder of them, or a folder of images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or contents that are not data.
    """
    path = Path(path)
    kind = streamed_kind(path)
    if kind is None:
        raise ValueError(
            f"cannot stream {str(path)!r}: expected a .npy file, a zarr folder, a .parquet file or a folder of them, "
            "or a folder of images; save .npy, or load it whole with stream=False"
        )
    return kind(path)


def streamed_kind(path: Path) -> Callable[[Path], Store] | None:
    """What reads a path block by block; ``None`` where nothing does."""
    if path.suffix == ".zarr" or any((path / name).is_file() for name in _ZARR_FILES):
        return ZarrArray
    if path.is_dir():
        return ParquetFolder if next(path.rglob("*.parquet"), None) is not None else ImageFolder
    files: dict[str, Callable[[Path], Store]] = {".npy": ArrayFile, ".parquet": ParquetFolder}
    return files.get(path.suffix)
