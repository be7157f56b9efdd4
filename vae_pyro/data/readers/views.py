"""Views of a store: some of its rows, and rows that are changed as they are read."""

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from vae_pyro.data.readers.store import Array, Extent, Store

type Change = Callable[[Array, Array], Array]


class View(Store):
    """Rows of another store: their facts, labels and errors."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.name, self.about, self.labelled, self.matrix = store.name, store.about, store.labelled, store.matrix
        self.x_shape, self.dtype, self.edges = store.x_shape, store.dtype, store.edges

    def __len__(self) -> int:
        return len(self.store)

    @property
    def kind(self) -> str:
        """Of the store."""
        return self.store.kind

    def labels(self, index: Array) -> Array | None:
        return self.store.labels(index)

    def mask(self, index: Array) -> Array | None:
        return self.store.mask(index)

    def ids(self, index: Array) -> Array:
        return self.store.ids(index)

    @property
    def obstacle(self) -> str | None:
        """Of the store."""
        return self.store.obstacle


class Selection(View):
    """Some rows of another store. What the values reach is known of the whole, so that one pass serves all parts."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.matrix = None

    @abstractmethod
    def source(self, index: Array) -> Array:
        """Numbers of some rows in the store."""

    @cached_property
    def top(self) -> float | None:
        """Of the whole store."""
        return self.store.top

    @cached_property
    def two_levels(self) -> bool:
        """Of the whole store."""
        return self.store.two_levels

    @cached_property
    def extent(self) -> Extent:
        """Of the whole store."""
        return self.store.extent

    def read(self, start: int, stop: int) -> Array:
        return self.rows(np.arange(start, stop))

    def rows(self, index: Array) -> Array:
        return self.store.rows(self.source(index))

    def labels(self, index: Array) -> Array | None:
        return self.store.labels(self.source(index))

    def mask(self, index: Array) -> Array | None:
        return self.store.mask(self.source(index))

    def ids(self, index: Array) -> Array:
        return self.store.ids(self.source(index))


class Between(Selection):
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

    def source(self, index: Array) -> Array:
        return np.asarray(index, np.int64) + self.start

    def read(self, start: int, stop: int) -> Array:
        return self.store.read(self.start + start, self.start + stop)

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
        return self._change(self.store.read(start, stop), np.arange(start, stop))

    def rows(self, index: Array) -> Array:
        return self._change(self.store.rows(index), np.asarray(index, np.int64))

    def digest(self) -> str:
        """Of the store, and of the change."""
        return f"{self.store.digest()} {self._named}"
