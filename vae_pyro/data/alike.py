"""Other data as those of a run are: columns and classes by their names, and intensities on the same scale."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from vae_pyro.data.facts import DataFacts
from vae_pyro.data.readers.store import Array, Store
from vae_pyro.data.readers.views import View
from vae_pyro.data.tables.cells import listed


def like(store: Store, facts: DataFacts) -> Store:
    """The rows of a store as those of a run's data are.

    Columns that the run does not have are passed over; data whose columns have no names are taken as they are. Classes
    that are numbers, or names of numbers, are codes; where only one of the two has names, labels are not known.

    Args:
        store: of the other data.
        facts: of the run's data.

    Raises:
        ValueError: a column that is not there, a class that the run does not know, or intensities beyond its scale.
    """
    about = store.about
    order = None
    if facts.columns and about.columns and facts.schema is None:
        order = places_of(about.columns, facts.columns)
    top = store.top
    if top is not None and facts.top is not None and top != facts.top:
        highest = store.reach[1]
        if highest > facts.top:
            raise ValueError(
                f"these data reach {highest:g}, and the model's are at most {facts.top:g}; bring them to the same scale"
            )
        top = facts.top
    named = store.labelled and (about.classes or facts.classes)
    codes = codes_of(about.classes, facts.classes) if named else None
    if order is None and top == store.top and not named:
        return store
    return _Alike(store, order, top, codes, labelled=store.labelled and (not named or codes is not None))


def places_of(names: Sequence[str], columns: Sequence[str]) -> Array | None:
    """Where the columns of a model stand among those of a table; ``None`` where the two are the same.

    Raises:
        ValueError: one is not there.
    """
    absent = [name for name in columns if name not in names]
    if absent:
        raise ValueError(
            f"the table lacks the column{'s' if len(absent) > 1 else ''} {listed(absent)} of the model's data; it has "
            f"{listed(names)}"
        )
    return None if list(columns) == list(names) else np.asarray([list(names).index(name) for name in columns])


def codes_of(own: Sequence[str] | None, known: Sequence[str] | None) -> Array | None:
    """The run's code of each of the classes of other data; ``None`` where nothing says it.

    Raises:
        ValueError: a class that the run does not know.
    """
    if own is None:
        return None
    if known is None:
        return np.asarray([int(name) for name in own]) if all(name.isdecimal() for name in own) else None
    absent = [name for name in own if name not in known]
    if absent:
        raise ValueError(f"the model knows no class {listed(absent)}; it knows {listed(known)}")
    return np.asarray([list(known).index(name) for name in own])


class _Alike(View):
    """Rows with columns, full intensity and codes of labels of other data."""

    def __init__(
        self, store: Store, order: Array | None, top: float | None, codes: Array | None, *, labelled: bool
    ) -> None:
        super().__init__(store)
        self._order, self._top, self._codes, self.labelled = order, top, codes, labelled
        if order is not None:
            self.x_shape = (len(order),)

    @cached_property
    def top(self) -> float | None:
        """Of the other data."""
        return self._top

    def _ordered(self, rows: Array) -> Array:
        return rows if self._order is None else np.ascontiguousarray(rows[:, self._order])

    def read(self, start: int, stop: int) -> Array:
        return self._ordered(self.store.read(start, stop))

    def rows(self, index: Array) -> Array:
        return self._ordered(self.store.rows(index))

    def mask(self, index: Array) -> Array | None:
        stated = self.store.mask(index)
        return None if stated is None else self._ordered(stated)

    def labels(self, index: Array) -> Array | None:
        found = self.store.labels(index) if self.labelled else None
        return found if found is None or self._codes is None else self._codes[found]

    def digest(self) -> str:
        """Of the store, and of what is changed."""
        changed = [None if one is None else one.tolist() for one in (self._order, self._codes)]
        return f"{self.store.digest()} {changed} {self._top}"
