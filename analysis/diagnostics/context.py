"""What a diagnostic of the report works on: a pair, its data, seeds, and draws that several diagnostics share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
import xarray as xr

from analysis.diagnostics.config import ReportConfig
from analysis.draws.codes import posterior_means
from analysis.draws.datatree import to_datatree
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import Pair

type Array = np.ndarray[Any, Any]
type Requirement = Literal["record", "train", "validation", "labels"]

_NAMES: dict[Requirement, str] = {
    "record": "a record of the fit",
    "train": "training data",
    "validation": "validation data",
    "labels": "labels",
}
_TREE_STREAM, _CODES_STREAM, _ROWS_STREAM = 1, 7, 14


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
    """A pair with its data and settings; every section that looks at draws of the held-out data takes them from here.

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

    @property
    def labels(self) -> Array | None:
        """Labels of the held-out data, ``(datum,)``."""
        return None if self.test.labels is None else self.test.labels.cpu().numpy()

    def stream(self, *key: int | str) -> int:
        """Seed of one of many independent random streams; a diagnostic begins its keys with its own name."""
        return derive_seed(self.seed, *(crc32(part.encode()) if isinstance(part, str) else part for part in key))

    def lacks(self, requires: Sequence[Requirement]) -> str:
        """Which of some inputs are not given, in words; empty where none is missing."""
        return " and ".join(_NAMES[name] for name in requires if getattr(self, name) is None)

    @cached_property
    def tree(self) -> xr.DataTree:
        """Draws and log densities of all held-out data, with predictive draws where these are few enough."""
        return self._draw(self.test, None if self._few else False)

    @cached_property
    def predictive_tree(self) -> xr.DataTree:
        """`tree` where it has predictive draws; else a tree with them of ``num_predictive`` data, chosen at random."""
        if self._few:
            return self.tree
        random = np.random.default_rng(self.stream(_ROWS_STREAM))
        rows = np.sort(random.permutation(len(self.test))[: self.config.num_predictive])
        return self._draw(self.test.take(torch.from_numpy(rows)), None)

    @cached_property
    def codes(self) -> Array:
        """Posterior means of the held-out data, ``(datum, latent)``."""
        return posterior_means(self.pair, self.test, seed=self.stream(_CODES_STREAM))

    @property
    def drawn(self) -> xr.DataTree | None:
        """All draws that were made, in one tree; ``None`` where no diagnostic asked for any."""
        made = self.__dict__
        tree: xr.DataTree | None = made.get("tree")
        subset: xr.DataTree | None = made.get("predictive_tree")
        if subset is not None and subset is not tree:
            tree = xr.DataTree() if tree is None else tree
            tree["predictive_subset"] = subset
        return tree

    @property
    def _few(self) -> bool:
        return len(self.test) <= self.config.num_predictive

    def _draw(self, data: Split, predictive: bool | None) -> xr.DataTree:
        seed = self.stream(_TREE_STREAM)
        return to_datatree(self.pair, data, num_draws=self.config.num_draws, seed=seed, predictive=predictive)
