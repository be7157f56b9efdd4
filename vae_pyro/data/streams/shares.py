"""Rows of a store dealt at random into shares for training, validation and testing."""

import numpy as np

from vae_pyro.data.readers.store import Array, Store
from vae_pyro.data.readers.views import Selection

# Rows of which each share takes its part, where the store does not decide it; the fewest of them.
_GROUP_ROWS, _FEWEST_ROWS = 256, 64


class Share(Selection):
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
        """See `Store.borders`: whole groups, dealt once, unless they are too large."""
        groups = round(self.block * (len(self._starts) - 1) / max(len(self), 1))
        if self.edges is not None or groups == 0:
            return super().borders
        return np.unique(np.r_[self._starts[:-1:groups], self._starts[-1]])

    def source(self, index: Array) -> Array:
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

    def digest(self) -> str:
        """Of the store, and of how it was dealt."""
        return f"{self.store.digest()} {self.which} {self.fractions} {self.seed}"


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
