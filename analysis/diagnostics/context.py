"""What a diagnostic of the report works on: a pair, its data, seeds, and draws that several diagnostics share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
import xarray as xr

from analysis.diagnostics.config import ReportConfig
from analysis.draws.datatree import TreeReducer
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import Split
from vae_pyro.data.tables.schema import Schema
from vae_pyro.densities.pair import Pair
from vae_pyro.densities.walk import Block, PairData, Reducer, bind

type Array = np.ndarray[Any, Any]
type Requirement = Literal["record", "train", "validation", "labels", "schema"]

_NAMES: dict[Requirement, str] = {
    "record": "a record of the fit",
    "train": "training data",
    "validation": "validation data",
    "labels": "labels",
    "schema": "a table whose columns have kinds",
}
_WALK_STREAM, _ROWS_STREAM = 1, 14
# Trees of draws that several diagnostics share.
TREE, PREDICTIVE_TREE = "tree", "predictive_tree"


@dataclass(frozen=True)
class FitRecord:
    """What is known of a fit.

    Attributes:
        history: one row for each epoch.
        model: choices of the model, by name.
        fit: choices of the fit.
    """

    history: Sequence[Mapping[str, float]] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Context:
    """A pair with its data and settings; every section takes the draws of the held-out data from here.

    Attributes:
        pair: the model and its guide.
        test: held-out data, their observations fixed.
        stored: the same before random observations were drawn, as ``train`` is.
        train: data of the fit.
        validation: data like the held-out ones.
        record: of the fit.
        config: how much is drawn.
        seed: of the report.
    """

    pair: Pair
    test: Split
    stored: Split
    train: Split | None = None
    validation: Split | None = None
    record: FitRecord | None = None
    config: ReportConfig = field(default_factory=ReportConfig)
    seed: int = 0
    _results: dict[str, Any] = field(default_factory=dict, repr=False)
    _errors: dict[str, Exception] = field(default_factory=dict, repr=False)

    @property
    def labels(self) -> Array | None:
        """Labels of the held-out data, ``(datum,)``."""
        return None if self.test.labels is None else self.test.labels.cpu().numpy()

    @property
    def schema(self) -> Schema | None:
        """Kinds of the columns of the table that the data are; ``None`` for other data."""
        return self.pair.schema

    def stream(self, *key: int | str) -> int:
        """Seed of one of many independent random streams; a diagnostic begins its keys with its own name."""
        return derive_seed(self.seed, *(crc32(part.encode()) if isinstance(part, str) else part for part in key))

    def lacks(self, requires: Sequence[Requirement]) -> str:
        """Which of some inputs are not given, in words; empty where none is missing."""
        return " and ".join(_NAMES[name] for name in requires if getattr(self, name) is None)

    @cached_property
    def data(self) -> PairData:
        """The pair with the held-out data."""
        return bind(self.pair, self.test, seed=self.seed, check=False)

    @property
    def few(self) -> bool:
        """Whether all held-out data are few enough to draw replications of each."""
        return len(self.test) <= self.config.num_predictive

    def tree_reducer(self) -> Reducer[xr.DataTree]:
        """Draws and log densities of all held-out data, with predictive draws where these are few enough."""
        return self._tree_reducer(self.data, None if self.few else False)

    def predictive_reducer(self) -> Reducer[xr.DataTree]:
        """The same with predictive draws, of ``num_predictive`` data that are chosen at random."""
        random = np.random.default_rng(self.stream(_ROWS_STREAM))
        rows = np.sort(random.permutation(len(self.test))[: self.config.num_predictive])
        some = replace(self.data, split=self.data.split.take(torch.from_numpy(rows).to(self.data.device)))
        return SubsetReducer(self._tree_reducer(some, None), rows)

    def _tree_reducer(self, data: PairData, predictive: bool | None) -> TreeReducer:
        return TreeReducer(data, self.config.num_draws, seed=self.stream(_WALK_STREAM), predictive=predictive)

    def collect(
        self,
        reducers: Mapping[str, Callable[[], Reducer[Any]]],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Draw from the guide at all held-out data, once, and feed the draws to everything that uses them.

        A reducer that fails on these data is left out, and `collected` raises what it raised.

        Args:
            reducers: how to make each, by name.
            progress: called after each block with the numbers of data that are done, and of all.
        """
        running: dict[str, Reducer[Any]] = {}
        for name, make in reducers.items():
            with self._errors_kept(name):
                running[name] = make()
        if running:
            for block in self.data.walk(self.config.num_draws, seed=self.stream(_WALK_STREAM)):
                for name in [name for name in running if name not in self._errors]:
                    with self._errors_kept(name):
                        running[name].add(block)
                progress(block.rows.stop, len(self.data))
        for name in [name for name in running if name not in self._errors]:
            with self._errors_kept(name):
                self._results[name] = running[name].result()

    @contextmanager
    def _errors_kept(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, ArithmeticError) as error:
            self._errors[name] = error

    def collected(self, name: str) -> Any:
        """What a reducer made of the draws of all held-out data.

        Raises:
            ValueError: the reducer cannot be used on these data.
            KeyError: there was no such reducer.
        """
        if name in self._errors:
            raise self._errors[name]
        return self._results[name]

    @property
    def drawn(self) -> xr.DataTree | None:
        """All draws that were made, in one tree; ``None`` where no diagnostic asked for any."""
        tree: xr.DataTree | None = self._results.get(TREE)
        subset: xr.DataTree | None = self._results.get(PREDICTIVE_TREE)
        if subset is not None:
            tree = xr.DataTree() if tree is None else tree
            tree["predictive_subset"] = subset
        return tree


class SubsetReducer[R]:
    """Feeds another reducer with some of the data.

    Args:
        reducer: of the smaller data set.
        rows: which of the data these are, rising.
    """

    def __init__(self, reducer: Reducer[R], rows: Array) -> None:
        self._reducer, self._rows = reducer, rows

    def add(self, block: Block) -> None:
        """Add the data of a block that are among them."""
        first, last = np.searchsorted(self._rows, (block.rows.start, block.rows.stop))
        if first < last:
            inside = torch.from_numpy(self._rows[first:last] - block.rows.start)
            self._reducer.add(block.select(inside, slice(int(first), int(last))))

    def result(self) -> R:
        """What the other reducer made of them."""
        return self._reducer.result()
