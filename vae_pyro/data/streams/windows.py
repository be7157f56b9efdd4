"""The order of an epoch over data that are not in memory, and a thread that reads ahead in it."""

import queue
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.readers.store import Array, Store

# Rows among which an epoch is shuffled, and half of what reading ahead holds: at least so many blocks, whatever they
# weigh, so that pieces of a store that can only be read whole are mixed with others.
WINDOW_BYTES = 1 << 25
FEWEST_BLOCKS = 4

_BLOCKS, _ROWS = 1, 2


class Order:
    """The order of one epoch: blocks of rows at random, window by window, and rows at random within a window.

    Each row comes once. Blocks are pieces of the store where it has some, else about 128 KiB; a window is 32 MiB. What
    it holds is one number for each block.

    Args:
        store: of the rows.
        seed: decides the order.
    """

    def __init__(self, store: Store, seed: int) -> None:
        size = len(store)
        edges = store.borders
        blocks = np.random.default_rng(derive_seed(seed, _BLOCKS)).permutation(len(edges) - 1)
        self._starts, self._stops = edges[:-1][blocks], edges[1:][blocks]
        largest = int((self._stops - self._starts).max()) * store.row_bytes
        self._at_once = max(WINDOW_BYTES // largest, FEWEST_BLOCKS)
        ends = np.cumsum(self._stops - self._starts)
        # Where each window begins, counted in rows of the epoch, and where the last one ends.
        self.bounds: Array = np.r_[0, ends[self._at_once - 1 :: self._at_once]]
        if self.bounds[-1] != size:
            self.bounds = np.r_[self.bounds, size]
        self._seed = seed

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def rows(self) -> int:
        """Rows of the largest window."""
        return int(np.diff(self.bounds).max())

    def window_of(self, row: int) -> int:
        """The window in which a row of the epoch comes."""
        return int(np.searchsorted(self.bounds, row, "right")) - 1

    def blocks(self, window: int) -> list[tuple[int, int]]:
        """First and last row, exclusive, of each block of a window, in the order in which they are read."""
        some = slice(window * self._at_once, (window + 1) * self._at_once)
        return list(zip(self._starts[some].tolist(), self._stops[some].tolist(), strict=True))

    def rows_of(self, window: int) -> Array:
        """Numbers of the rows of a window, in the order in which they are read."""
        return np.concatenate([np.arange(start, stop) for start, stop in self.blocks(window)])

    def shuffle(self, window: int) -> Array:
        """Order of the rows within a window."""
        size = int(self.bounds[window + 1] - self.bounds[window])
        return np.random.default_rng(derive_seed(self._seed, _ROWS, window)).permutation(size)


class _Stopped:
    """Ends the thread: nobody waits for its windows any more."""


def windows(store: Store, order: Order, first: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The windows of an epoch, each read while the one before it is used.

    Two buffers are all that is held: page-locked where the device is a GPU, so that copying does not wait. The thread
    ends with the last window, with an error, and when this iterator is closed or forgotten.

    Args:
        store: of the rows.
        order: of the epoch.
        first: window to begin with; those before it are not read.
        device: where they are used.

    Yields:
        Rows of a window as they were read, ``(datum, *x_shape)``, and the order that shuffles them; both are good until
        the next is asked for.

    Raises:
        ValueError: what reading raised in the thread.
    """
    on_gpu = device.type == "cuda"
    dtype = torch.from_numpy(np.empty(0, store.dtype)).dtype
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(min(2, len(order) - first)):
        free.put((torch.empty((order.rows, *store.x_shape), dtype=dtype, pin_memory=on_gpu), None))
    stop = threading.Event()
    # Everything by value: were the thread to hold this iterator, it would never be forgotten.
    thread = threading.Thread(
        target=_read_ahead, args=(store, order, first, free, ready, stop), name="vae_pyro reads ahead", daemon=True
    )
    thread.start()
    try:
        for _ in range(first, len(order)):
            got = ready.get()
            if isinstance(got, BaseException):
                raise got
            buffer, size, shuffle = got
            values, index, copied = buffer[:size], torch.from_numpy(shuffle), None
            if on_gpu:
                values = values.to(device, non_blocking=True)
                copied = torch.cuda.Event()
                copied.record(torch.cuda.current_stream(device))
                free.put((buffer, copied))
                yield values, index.to(device)
            else:
                yield values, index
                free.put((buffer, copied))
    finally:
        stop.set()
        free.put(_Stopped)
        if threading.current_thread() is not thread:  # where the collector runs in it
            thread.join()


def _read_ahead(
    store: Store,
    order: Order,
    first: int,
    free: "queue.SimpleQueue[Any]",
    ready: "queue.SimpleQueue[Any]",
    stop: threading.Event,
) -> None:
    try:
        for window in range(first, len(order)):
            got = free.get()
            if got is _Stopped:
                return
            buffer, copied = got
            if copied is not None:
                copied.synchronize()
            rows, at = buffer.numpy(), 0
            for start, end in order.blocks(window):
                if stop.is_set():
                    return
                rows[at : at + end - start] = store.read(start, end)
                at += end - start
            ready.put((buffer, at, order.shuffle(window)))
    except BaseException as error:
        ready.put(error)
