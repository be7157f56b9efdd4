"""From a source to splits: opened by its reader, dealt out, and observed as a configuration says."""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.memory import require_memory
from vae_pyro.data.config import DataConfig
from vae_pyro.data.datasets import DATASETS, open_dataset
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows
from vae_pyro.data.observation import Observation
from vae_pyro.data.readers import open_source
from vae_pyro.data.readers.reader import with_columns
from vae_pyro.data.readers.store import Array, Extent, Store
from vae_pyro.data.readers.views import Changed
from vae_pyro.data.split import Split
from vae_pyro.data.streams.shares import Share
from vae_pyro.data.streams.split import StreamedSplit

NAMES = ("train", "validation", "test")
_SPLIT_STREAM = 1


def open_data(config: DataConfig) -> Store:
    """What a configuration names, opened and not yet read where it can be streamed.

    Raises:
        FileNotFoundError: no such file, or a data set that is absent and cannot be downloaded.
        ValueError: unknown name or format, contents that are not data, columns of what is no table, or data that are
            to be streamed and cannot be.
    """
    if config.source in DATASETS:
        if config.stream:
            raise ValueError(f"data set {config.source!r} is small, and cannot be streamed; leave stream out")
        store = open_dataset(config.source, config.root)
        plain = config.kinds is None and config.columns is None
        return store if plain else with_columns(config.source, store, config.kinds, config.columns)
    path = Path(config.source)
    if not path.exists() and not path.suffix and os.sep not in config.source:
        DATASETS[config.source]  # raises, with the names that there are
    return open_source(path, kinds=config.kinds, columns=config.columns, stream=bool(config.stream))


def is_streamed(config: DataConfig, store: Store) -> bool:
    """Whether the data are streamed: as the configuration says, else as their reader prefers.

    Raises:
        ValueError: they are to be, and cannot be.
    """
    streams = store.prefers_streaming if config.stream is None else config.stream
    if streams:
        store.require_streaming()
    return streams


def streamed_parts(config: DataConfig, store: Store) -> dict[str, Split]:
    """Training, validation and test data of a store, which stay where they are.

    Raises:
        ValueError: see `streamed`.
    """
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    seed = derive_seed(config.seed, _SPLIT_STREAM)
    return {name: streamed(config, Share(store, name, **fractions, seed=seed)) for name in NAMES}


def streamed(config: DataConfig, store: Store) -> StreamedSplit:
    """All of a store, observed as a configuration says.

    Raises:
        ValueError: the values cannot be observed in that way.
    """
    view = config.observation(store.top, store.dtype, lambda: (store.extent.low, store.extent.high))
    if view.cut is not None:
        cut = partial(_cut, at=view.cut)
        store = Changed(store, cut, dtype=np.uint8, extent=Extent(0.0, 1.0, True), about=f"at least {view.cut}")
    return StreamedSplit(store, top=view.top, draw=view.draw, space=view.space)


def _cut(values: Array, index: Array, *, at: float) -> Array:
    return (values >= at).astype(np.uint8)


def held_parts(config: DataConfig, store: Store) -> dict[str, Split]:
    """Training, validation and test data of a store, copied into memory; test data of its own stay such.

    Raises:
        ValueError: see `held`.
    """
    order = np.random.default_rng(derive_seed(config.seed, _SPLIT_STREAM)).permutation(len(store))
    rows: dict[str, Array] = {}
    if store.test is None:
        num_test = round(config.test_fraction * len(order))
        rows["test"], order = np.sort(order[:num_test]), order[num_test:]
    num_validation = round(config.validation_fraction * len(order))
    rows["validation"], rows["train"] = np.sort(order[:num_validation]), np.sort(order[num_validation:])
    view = observation_of(config, store)
    parts = held(store, rows, view)
    if store.test is not None:
        parts |= held(store.test, {"test": np.arange(len(store.test))}, view)
    return parts


def observation_of(config: DataConfig, store: Store) -> Observation:
    """How the rows of a store are observed, once they are in memory.

    Raises:
        ValueError: the values cannot be observed in that way.
    """
    view = config.observation(store.top, store.dtype, lambda: store.reach)
    return view if store.about.schema is None else replace(view, space=store.about.schema.space)


def held(store: Store, rows: Mapping[str, Array], view: Observation) -> dict[str, Split]:
    """Copies of some rows of a store, dealt out in one pass over it.

    Args:
        store: of all rows.
        rows: numbers of the rows of each part, rising.
        view: how they are observed.

    Raises:
        ValueError: rows that cannot be read, or sparse ones that cannot be observed in that way.
    """
    if store.matrix is not None:
        chosen = {name: store.matrix[index] for name, index in rows.items()}
        if view.cut is not None:
            chosen = {name: (some >= view.cut).astype(np.uint8) for name, some in chosen.items()}
        return {
            name: SparseSplit(SparseRows.of(some), **_beside(store, rows[name], view)) for name, some in chosen.items()
        }
    size = sum(len(index) for index in rows.values()) * store.row_bytes
    require_memory(size, f"{store.name}: {len(store):,} rows of shape {store.x_shape}", "take fewer, or stream them")
    values, masks = _dense(store, rows, view.cut)
    return {
        name: ResidentSplit(torch.from_numpy(values[name]), mask=masks[name], **_beside(store, index, view))
        for name, index in rows.items()
    }


def _beside(store: Store, index: Array, view: Observation) -> dict[str, Any]:
    """What splits of all kinds have: labels, numbers of rows, and how these are observed."""
    labels = store.labels(index)
    return {
        "labels": None if labels is None else torch.from_numpy(np.ascontiguousarray(labels)),
        "ids": torch.from_numpy(np.ascontiguousarray(index)),
        "top": view.top,
        "draw": view.draw,
        "space": view.space,
    }


def _dense(
    store: Store, rows: Mapping[str, Array], cut: float | None
) -> tuple[dict[str, Array], dict[str, Tensor | None]]:
    """Values of each part, and masks of those in which something is not observed."""
    dtype = store.dtype if cut is None else np.dtype(np.uint8)
    values = {name: np.empty((len(index), *store.x_shape), dtype) for name, index in rows.items()}
    masks: dict[str, Array] = {}
    for start, block in store.blocks():
        for name, index in rows.items():
            first, last = np.searchsorted(index, (start, start + len(block))).tolist()
            some = values[name][first:last]
            # Nothing is out of bounds, and the mode that would notice copies twice.
            taken = np.take(block, index[first:last] - start, 0, out=some if cut is None else None, mode="clip")
            if cut is not None:
                some[:] = taken >= cut
            missing = np.isnan(taken) if taken.dtype.kind == "f" else None
            if missing is not None and missing.any():
                masks.setdefault(name, np.ones(values[name].shape, np.bool_))[first:last] = ~missing
    for name, index in rows.items():
        stated = store.mask(index)
        if stated is not None:
            masks[name] = stated & masks.get(name, True)
    return values, {name: torch.from_numpy(masks[name]) if name in masks else None for name in rows}
