"""Views of a store: a share of its rows, and rows that are changed as they are read."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from vae_pyro.data.streams.stores import Array, Extent, Store

# Rows of which each share takes its part, where the store does not decide it; the fewest of them.
_GROUP_ROWS, _FEWEST_ROWS = 256, 64

type Change = Callable[[Array, Array], Array]


class View(Store):
    """Rows of another store: its facts, labels and errors."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.name, self.about, self.labelled = store.name, store.about, store.labelled
        self.x_shape, self.dtype, self.edges = store.x_shape, store.dtype, store.edges

    def __len__(self) -> int:
        return len(self.store)

    @property
    def kind(self) -> str:
        """Of the store."""
        return self.store.kind

    @cached_property
    def top(self) -> float | None:
        """Of the store."""
        return self.store.top

    @cached_property
    def two_levels(self) -> bool:
        """Of the whole store."""
        return self.store.two_levels

    @cached_property
    def extent(self) -> Extent:
        """Of the whole store, so that one pass serves all its shares."""
        return self.store.extent

    def labels(self, index: Array) -> Array | None:
        """See `vae_pyro.data.streams.stores.Store.labels`."""
        return self.store.labels(index)

    def ids(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.ids`."""
        return self.store.ids(index)


class Share(View):
    """One of the shares into which rows are dealt at random: test data, validation data, or the rest.

    The rows are dealt group by group: of each group of consecutive rows (256, or a piece of the store, of at least 64),
    a random choice that ``seed`` decides goes to each share. So no list of rows is kept, and to read a share in order
    is to read the store in order. Sizes are those of a split of the whole: ``round(test * n)``, and
    ``round(validation * (n - round(test * n)))``; from group to group they are rounded so that they add up to these.

    The choice is by rank among hashes of the row numbers, which are the outputs of SplitMix64 (Steele, Lea & Flood
    2014, fig. 17, doi:10.1145/2660193.2660195) and so the same on every machine and release.

    Args:
        store: of all rows.
        which: ``test``, ``validation`` or ``train``.
        test: share of all rows.
        validation: share of those that are left.
        seed: of the choice.
    """

    def __init__(self, store: Store, which: str, *, test: float, validation: float, seed: int) -> None:
        super().__init__(store)
        self.which, self.fractions, self.seed = which, (test, validation), seed
        self._groups = _groups(store)
        # Running sizes of test and validation at each border between groups; a difference is what a group gives.
        tested = np.rint(test * self._groups)
        validated = np.rint(validation * (self._groups - tested))
        given = np.diff(np.stack([tested, validated]).astype(np.int64), axis=1)
        sizes = np.diff(self._groups)
        self._first = {"test": 0 * sizes, "validation": given[0], "train": given.sum(0)}[which]
        self._last = {"test": given[0], "validation": given.sum(0), "train": sizes}[which]
        self._starts = np.r_[0, np.cumsum(self._last - self._first)]
        self.edges = None if store.edges is None else np.unique(self._starts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def borders(self) -> Array:
        """See `Store.borders` of `stores`: whole groups, dealt once, unless they are too large."""
        groups = round(self.block * (len(self._starts) - 1) / max(len(self), 1))
        if self.edges is not None or groups == 0:
            return super().borders
        return np.unique(np.r_[self._starts[:-1:groups], self._starts[-1]])

    def _source(self, index: Array) -> Array:
        """Rows of the store."""
        index = np.asarray(index, np.int64)
        groups = np.searchsorted(self._starts, index, "right") - 1
        if len(index) and groups[0] == groups[-1] and (groups == groups[0]).all():
            return self._chosen(groups[0])[index - self._starts[groups[0]]]
        found = np.empty(len(index), np.int64)
        for group in np.unique(groups).tolist():
            here = groups == group
            found[here] = self._chosen(group)[index[here] - self._starts[group]]
        return found

    def _chosen(self, group: int) -> Array:
        rows = np.arange(self._groups[group], self._groups[group + 1])
        order = np.argsort(_hashes(rows, self.seed))
        return rows[np.sort(order[self._first[group] : self._last[group]])]

    def read(self, start: int, stop: int) -> Array:
        """See `vae_pyro.data.streams.stores.Store.read`."""
        return self.store.rows(self._source(np.arange(start, stop)))

    def rows(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.rows`."""
        return self.store.rows(self._source(index))

    def labels(self, index: Array) -> Array | None:
        """See `vae_pyro.data.streams.stores.Store.labels`."""
        return self.store.labels(self._source(index))

    def ids(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.ids`."""
        return self.store.ids(self._source(index))

    def digest(self) -> str:
        """Of the store, and of how it was dealt."""
        return f"{self.store.digest()} {self.which} {self.fractions} {self.seed}"


class Between(View):
    """Consecutive rows of another store.

    Args:
        store: of all rows.
        start: first of them.
        stop: last of them, exclusive.
    """

    def __init__(self, store: Store, start: int, stop: int) -> None:
        super().__init__(store)
        self.start, self.size = start, stop - start
        if store.edges is not None:
            self.edges = np.unique(np.clip(store.edges, start, stop)) - start

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> Array:
        """See `vae_pyro.data.streams.stores.Store.read`."""
        return self.store.read(self.start + start, self.start + stop)

    def rows(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.rows`."""
        return self.store.rows(np.asarray(index, np.int64) + self.start)

    def labels(self, index: Array) -> Array | None:
        """See `vae_pyro.data.streams.stores.Store.labels`."""
        return self.store.labels(np.asarray(index, np.int64) + self.start)

    def ids(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.ids`."""
        return self.store.ids(np.asarray(index, np.int64) + self.start)

    def digest(self) -> str:
        """Of the store, and of which rows."""
        return f"{self.store.digest()} {self.start}-{self.start + self.size}"


class Changed(View):
    """Rows that go through a function as they are read.

    Args:
        store: of the rows.
        change: gives the new values of ``(values, index)``; what it draws may depend on the index alone.
        dtype: of the new values.
        extent: of the new values.
        about: names the change, for `digest`.
    """

    def __init__(self, store: Store, change: Change, *, dtype: Any, extent: Extent, about: str) -> None:
        super().__init__(store)
        self.dtype = np.dtype(dtype)
        self._change, self._extent, self._named = change, extent, about

    @property
    def borders(self) -> Array:
        """Of the store."""
        return self.store.borders

    @cached_property
    def top(self) -> float | None:
        """None: the new values are observations."""
        return None

    @cached_property
    def extent(self) -> Extent:
        """As it was given."""
        return self._extent

    def read(self, start: int, stop: int) -> Array:
        """See `vae_pyro.data.streams.stores.Store.read`."""
        return self._change(self.store.read(start, stop), np.arange(start, stop))

    def rows(self, index: Array) -> Array:
        """See `vae_pyro.data.streams.stores.Store.rows`."""
        return self._change(self.store.rows(index), np.asarray(index, np.int64))

    def digest(self) -> str:
        """Of the store, and of the change."""
        return f"{self.store.digest()} {self._named}"


def _groups(store: Store) -> Array:
    """First rows of groups, and the number of rows: whole pieces where the store has some."""
    if store.edges is None:
        return np.r_[np.arange(0, len(store), _GROUP_ROWS), len(store)]
    kept = [0]
    for edge in store.edges[1:].tolist():
        if edge - kept[-1] >= _FEWEST_ROWS or edge == len(store):
            kept.append(edge)
    return np.asarray(kept)


def _hashes(rows: Array, seed: int) -> Array:
    """Outputs of SplitMix64 that was seeded with ``seed``, one for each row."""
    state = np.uint64(seed) + (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
