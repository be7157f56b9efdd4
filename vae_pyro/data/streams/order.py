"""Rows of data that are not in memory in a random order: those of an epoch, and a sample of all."""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.readers.store import Array, Store
from vae_pyro.data.streams.windows import Order, windows

_SAMPLED_PIECES = 256
_PIECES, _ROWS, _MIXED = 1, 2, 3


def shuffled(
    store: Store, seed: int, places: Iterable[tuple[int, int]], device: torch.device, y: Tensor | None
) -> Iterator[list[Tensor]]:
    """Rows of an epoch in its order, see `Order`; windows before the first place are not read.

    Args:
        store: of the rows.
        seed: decides the order.
        places: which rows of the epoch to give at once, from and to, one after the other; rows between may be left out.
        device: where they are used.
        y: classes of all rows, on the device.

    Yields:
        Rows as they are stored, ``(datum, *x_shape)``, and their classes where some are given.

    Raises:
        ValueError: what reading raised.
    """
    places = iter(places)
    first = next(places, None)
    if first is None:
        return
    order = Order(store, seed)
    window = order.window_of(first[0])
    ahead = windows(store, order, window, device)
    low = high = int(order.bounds[window])
    held = [torch.empty(0)]
    index = torch.empty(0)
    try:
        for begin, end in chain([first], places):
            done = begin
            pieces: list[list[Tensor]] = []
            while True:
                if done < high:
                    rows = index[done - low : min(end, high) - low]
                    pieces.append([tensor.index_select(0, rows) for tensor in held])
                    done = min(end, high)
                if end <= high and pieces:
                    break
                values, index = next(ahead)
                held = [values] if y is None else [values, y[torch.from_numpy(order.rows_of(window)).to(device)]]
                window, low, high = window + 1, high, high + len(index)
            yield [torch.cat(some) if len(some) > 1 else some[0] for some in zip(*pieces, strict=True)]
    finally:
        ahead.close()  # type: ignore[attr-defined]


def scattered_rows(store: Store, count: int, seed: int) -> Array:
    """So many rows in a random order, or all where there are fewer, from 256 blocks of the data as evenly as can be."""
    size = len(store)
    order = np.random.default_rng(derive_seed(seed, _MIXED))
    if count >= size:
        return order.permutation(size)
    edges = store.edges
    if edges is None:
        edges = np.r_[np.arange(0, size, min(store.block, max(size // _SAMPLED_PIECES, 1))), size]
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
    return order.permutation(np.sort(chosen))


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
