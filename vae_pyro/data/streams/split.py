"""Splits of data that are not in memory: read block by block, ahead of the step that needs them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from math import ceil, prod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.minibatches import WHOLE, Part, row_blocks
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.observation import GIVEN, Draw, Space
from vae_pyro.data.readers.store import Array, Extent, Store
from vae_pyro.data.readers.views import Between, Changed
from vae_pyro.data.split import Index, Split, Words, feed_tensor, row_numbers
from vae_pyro.data.streams.noise import drawn
from vae_pyro.data.streams.order import scattered_rows, shuffled
from vae_pyro.data.summary import DataSummary

_CPU = torch.device("cpu")


class NotResidentError(AttributeError, ValueError):
    """All values of data are asked for that are not in memory."""


@dataclass(frozen=True, eq=False, repr=False)
class StreamedSplit(Split):
    """Data of one split that stay where they are kept, and are read when they are asked for.

    ``fit``, ``evaluate``, ``elpd_of`` and whatever asks for data by `epoch` or by `batch` work block by block; what
    needs all values at once takes some first (`take`, `sample`). Memory does not grow with the number of data, but for
    results of one number a datum, and for `labels`, `ids` and ``y`` where they are asked for or given.

    Attributes:
        store: of the rows.
        top: see `Split`; likewise ``draw``, ``space`` and ``y``.
        device: where batches are handed out.
    """

    store: Store
    top: float | None = None
    draw: Draw = "none"
    space: Space = GIVEN
    y: Tensor | None = None
    device: torch.device = _CPU

    def __post_init__(self) -> None:
        device = torch.device(self.device)
        for name, value in {
            "space": Space(self.space),
            "device": device,
            "y": None if self.y is None else self.y.to(device),
        }.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.store.x_shape

    @property
    def dtype(self) -> torch.dtype:
        """See `Split.dtype`; nothing is read."""
        return torch.from_numpy(np.empty(0, self.store.dtype)).dtype

    @property
    def streamed(self) -> bool:
        """They are."""
        return True

    @property
    def mask(self) -> None:
        """None: everything is observed."""
        return None

    @property
    def labels(self) -> Tensor | None:
        """Labels of all data, ``(datum,)``, read at each call; ``None`` where there are none."""
        return self._labels(np.arange(len(self))) if self.store.labelled else None

    @property
    def ids(self) -> Tensor:
        """Row of each datum in its source, ``(datum,)``, made at each call."""
        return torch.from_numpy(self.store.ids(np.arange(len(self))))

    def __getattr__(self, name: str) -> Any:
        if name == "values":
            raise NotResidentError(
                f"{self.store.name} is streamed, and this requires all its values in memory; pass a part of it, such "
                "as split.take(slice(1000)) or split.sample(1000, seed=0)"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _labels(self, index: Array) -> Tensor | None:
        found = self.store.labels(index)
        return None if found is None else torch.from_numpy(np.ascontiguousarray(found)).to(self.device)

    def _read(self, index: Index) -> tuple[Tensor, Array]:
        """Some rows as they are stored, on the device, and their numbers."""
        rows = row_numbers(index, len(self))
        if isinstance(index, slice) and index.step in (None, 1) and len(rows):
            found = self.store.read(int(rows[0]), int(rows[-1]) + 1)
        else:
            found = self.store.rows(rows)
        return torch.from_numpy(found).to(self.device), rows

    def stored(self, index: Index) -> Tensor:
        """See `Split.stored`; reads just these rows, one by one where they are far apart. `epoch` reads far faster."""
        return self._read(index)[0]

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
        size = len(self)

        def place(number: int) -> tuple[int, int]:
            begin, end = part.bounds(min(batch_size, size - number * batch_size))
            return number * batch_size + begin, number * batch_size + end

        count = ceil(size / batch_size)
        if self.draw != "none":
            for begin, end in map(place, range(min(start, count))):
                bits((end - begin) * prod(self.x_shape))
        for values, *beside in shuffled(self.store, seed, map(place, range(start, count)), self.device, self.y):
            yield self._with_words(values, bits, beside)

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
            partial(drawn, split=replaced(self, y=None), seed=seed),
            dtype=np.uint8 if binary else np.float32,
            extent=extent,
            about=f"{self.draw} top={self.top} seed={seed}",
        )
        return replaced(self, store=store, top=None, draw="none")

    def to(self, device: torch.device) -> Self:
        return replaced(self, device=device)

    def replace(self, **changes: Any) -> Self:
        """See `Split.replace`; the data themselves stay as they are.

        Raises:
            ValueError: another attribute, such as a mask.
        """
        if changes.get("mask", self) is None:
            del changes["mask"]
        odd = [name for name in changes if name not in ("top", "draw", "space", "y", "device")]
        if odd:
            raise ValueError(
                f"{self.store.name} is streamed, and takes no {odd[0]} of its own; pass a part of it, such as "
                "split.take(slice(1000)) or split.sample(1000, seed=0)"
            )
        return replaced(self, **changes)

    def take(self, index: Index) -> ResidentSplit:
        values, rows = self._read(index)
        y = None if self.y is None else self.y[torch.from_numpy(rows).to(self.device)]
        ids = torch.from_numpy(self.store.ids(rows))
        return ResidentSplit(values, self._labels(rows), ids, top=self.top, draw=self.draw, space=self.space, y=y)

    def between(self, start: int, stop: int) -> "StreamedSplit":
        """See `Split.between`; they stay where they are."""
        stop = min(stop, len(self))
        return replaced(self, store=Between(self.store, start, stop), y=None if self.y is None else self.y[start:stop])

    def sample(self, count: int, seed: int) -> ResidentSplit:
        """See `Split.sample`.

        They come from 256 blocks of the data, chosen at random, as evenly as can be: neither all blocks are read nor
        one row of each.
        """
        return self.take(torch.from_numpy(scattered_rows(self.store, count, seed)))

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
        """See `Split.feed`; what it covers stands at `vae_pyro.data.readers.store.Store.digest`."""
        digest.update(b"|" + self.store.digest().encode())
        if self.y is not None:
            digest.update(b"|")
            feed_tensor(digest, self.y, row_blocks(len(self), 1))

    def _where(self) -> str:
        return f"streamed from {self.store.name} to {self.device}"

    def _has(self, name: str) -> bool:
        return self.store.labelled if name == "labels" else super()._has(name)
