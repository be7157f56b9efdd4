"""Data sets as a model observes them: loaded, split, and described by their facts."""

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.alike import like
from vae_pyro.data.config import DataConfig
from vae_pyro.data.datasets import DATASETS
from vae_pyro.data.dealing import (
    NAMES,
    held,
    held_parts,
    is_streamed,
    observation_of,
    open_data,
    streamed,
    streamed_parts,
)
from vae_pyro.data.facts import About, DataFacts
from vae_pyro.data.labels import repeat_labelled, with_labels
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.memory.sources import IN_MEMORY, store_of
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows, is_sparse
from vae_pyro.data.objects import classes_of, mask_of, tensor_of
from vae_pyro.data.readers import open_source
from vae_pyro.data.readers.store import Store
from vae_pyro.data.split import Split, fingerprint, seen
from vae_pyro.data.streams.split import StreamedSplit
from vae_pyro.data.tables.schema import Column

__all__ = ["DataConfig", "Dataset", "Split", "StreamedSplit", "as_split", "load", "load_all", "load_data", "stream"]

_BINARIZE_STREAM, _LABEL_STREAM = 2, 3


@dataclass(frozen=True)
class Dataset:
    """A data set split for training, validation and test.

    Attributes:
        train: what `vae_pyro.fit` learns from; random observations are drawn anew at every step.
        validation: for early stopping and tuning, with fixed observations; empty where none was taken out.
        test: held out, with fixed observations.
        config: what was loaded.
        facts: name, sizes, shape, range, kind, observation space, columns or classes, and a fingerprint.
    """

    train: Split
    validation: Split
    test: Split
    config: DataConfig
    facts: DataFacts

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of one datum."""
        return self.train.x_shape

    def split(self, name: str) -> Split:
        """``train``, ``validation`` or ``test`` with fixed observations, as an evaluation takes them.

        Raises:
            ValueError: another name, or a split without data.
        """
        if name not in NAMES:
            raise ValueError(f"unknown split {name!r}; choose from {', '.join(NAMES)}")
        chosen: Split = getattr(self, name)
        if len(chosen) == 0:
            raise ValueError(f"split {name!r} holds no data; choose another or load with a validation_fraction above 0")
        return chosen.fixed(derive_seed(self.config.seed, _BINARIZE_STREAM, 0))

    def __repr__(self) -> str:
        return f"Dataset({self.facts.title}; {', '.join(f'{len(getattr(self, name)):,} {name}' for name in NAMES)})"

    def __str__(self) -> str:
        return str(self.facts)

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{escape(title)}</th><td>{escape(text)}</td></tr>" for title, text in self.facts.rows())
        return f"<table><caption>{escape(self.facts.title)}</caption>{''.join(rows)}</table>"


def load_data(source: Any, *, labels: Any = None, **options: Any) -> Dataset:
    """Load a data set by name or path, or split what is in memory; the split is fixed by its seed.

    Args:
        source: see ``source`` of `DataConfig` (``vae-pyro datasets`` lists the names); or a table (``DataFrame``), an
            array, a tensor, a scipy sparse matrix, nested lists, or a map-style torch ``Dataset``.
        labels: of what is in memory, ``(datum,)``, integers or names.
        options: other fields of `DataConfig`: ``root``, ``scale``, ``binarize``, ``dequantize``,
            ``validation_fraction``, ``test_fraction``, ``seed``, ``stream``, ``given_labels``, ``labelled_share``,
            ``kinds``, ``columns``.

    Returns:
        The splits and the facts.

    Raises:
        FileNotFoundError: no such file, or a data set that is absent and cannot be downloaded.
        ValueError: an unknown name or option, or data that cannot be observed in the way that is asked for.

    >>> data = load_data("digits")
    >>> len(data.train), len(data.validation), len(data.test), data.x_shape
    (1294, 144, 359, (1, 8, 8))
    >>> print(data)
    digits: image, 1 x 8 x 8
      splits    train 1,294, validation 144, test 359
      observed  stored values / 16; no random element
      range     0 to 1, training data
      labels    yes
    """
    if isinstance(source, str | os.PathLike):
        if labels is not None:
            raise ValueError("labels are of data in memory; a file has its own, beside x in .npz (y)")
        return DataConfig(source=str(source), **options).load()
    config = DataConfig(source=IN_MEMORY, **options)
    return split_store(config, store_of(source, labels, kinds=config.kinds, columns=config.columns))


def load(config: DataConfig, columns: tuple[Column, ...] | None = None) -> Dataset:
    """The data that a configuration names, see `DataConfig.load`."""
    return split_store(config, open_data(config if columns is None else config.replace(kinds=None, columns=columns)))


def split_store(config: DataConfig, store: Store) -> Dataset:
    """Rows that are open, split and prepared as a configuration says, see `DataConfig.load`."""
    if config.kinds == "auto":
        config = config.replace(kinds=None if store.about.schema is None else {})
    streams = is_streamed(config, store)
    if config.given_labels is not None and not store.labelled:
        raise ValueError(f"given_labels={config.given_labels!r} requires labels, and {config.source!r} has none")
    parts = streamed_parts(config, store) if streams else held_parts(config, store)
    described = {"kind": store.kind, "labels": store.labelled, "streamed": streams, "top": store.top}
    about, size = store.about, len(store)
    del store  # where the splits are copies, what follows needs the memory
    if not len(parts["train"]) or not len(parts["test"]):
        raise ValueError(
            f"{size} data are too few for validation_fraction={config.validation_fraction} and "
            f"test_fraction={config.test_fraction}"
        )
    if config.given_labels is not None:
        seed = derive_seed(config.seed, _LABEL_STREAM)
        every = config.given_labels == "all"  # else the labels of validation and test data stay unknown
        parts = {
            name: with_labels(part, config.given_labels if every or name == "train" else None, seed)
            for name, part in parts.items()
        }
        if config.labelled_share is not None and not every:
            parts["train"] = repeat_labelled(parts["train"], config.labelled_share)
    facts = _facts(config, parts, about, described)
    # Streams 0, 1, 2 keep the draws of the splits apart; `Dataset.split` fixes a random training set likewise.
    for number, name in enumerate(NAMES):
        if name != "train" or config.binarize == "static":
            parts[name] = parts[name].fixed(derive_seed(config.seed, _BINARIZE_STREAM, number))
    return Dataset(**parts, config=config, facts=facts)


def _facts(config: DataConfig, parts: dict[str, Split], about: About, described: dict[str, Any]) -> DataFacts:
    train = parts["train"]
    summary = train.summary()
    for name in ("validation", "test"):
        if len(parts[name]):
            parts[name].summary()  # values that are not finite are refused wherever they fell
    hidden = None if train.mask is None else 1 - float(train.mask.sum(dtype=torch.float64)) / train.mask.numel()
    return DataFacts(
        name=config.source,
        path=None if config.source in (*DATASETS, IN_MEMORY) else str(Path(config.source).absolute()),
        x_shape=train.x_shape,
        sizes={name: len(parts[name]) for name in NAMES},
        range=(summary.low, summary.high),
        integral=summary.integral,
        space=parts["test"].space,
        evaluation=config.evaluation,
        missing=hidden,
        given_labels=None if train.y is None else int((train.y >= 0).sum()),
        fingerprint=fingerprint(*(parts[name] for name in NAMES)),
        **described,
        **vars(about),
    )


def load_all(config: DataConfig, facts: DataFacts | None = None) -> Split:
    """All of a source, its own test data included, as one split with fixed observations, prepared as ``config`` says.

    Args:
        config: where the data are, and how they are observed; with ``given_labels="all"`` the labels of a source that
            has them are given as ``y``.
        facts: of a run's data, which these are to be like: see `vae_pyro.data.alike.like`. Numbers between 0 and 1
            count as intensities where the run's are.

    Raises:
        FileNotFoundError: see `load_data`.
        ValueError: likewise; or data that cannot be like those of the run.
    """
    store = open_data(config)
    streams = is_streamed(config, store)
    store = store.whole()
    scaled = facts is not None and facts.top is not None and store.top is None
    if facts is not None:
        store = like(store, facts)
    if streams:
        part: Split = streamed(config, store)
    else:
        part = held(store, {"all": np.arange(len(store))}, observation_of(config, store))["all"]
    if config.given_labels == "all" and store.labelled:
        part = with_labels(part, "all", config.seed)
    del store  # of which the split is a copy
    if scaled and facts is not None and part.draw == "none" and part.mask is None:
        summary = part.summary()
        if summary.low >= 0 and summary.high <= 1:
            part = part.replace(space=facts.space)
    return part.fixed(derive_seed(config.seed, _BINARIZE_STREAM, 0))


def as_split(x: Any, mask: Any = None, y: Any = None) -> Split:
    """A split from what a user holds: a `Split`, an array, a table of numbers, a sparse matrix, or a ``Dataset``.

    Args:
        x: numbers ``(datum, *x_shape)``, see `vae_pyro.data.objects.tensor_of`; an element of a dense array that is
            NaN, or hidden in a masked one, is not observed. A scipy sparse matrix stays sparse; a map-style ``Dataset``
            is streamed, see `stream`.
        mask: boolean, shape of ``x``, true where observed, beside a mask that a split has of its own; sparse and
            streamed data have none.
        y: classes that the programs are given, ``(datum,)``; -1 where one is unknown.

    Raises:
        ValueError: not numbers, no data, or a mask or classes of another shape.
    """
    observed: Tensor | None = None
    if isinstance(x, Split):
        split: Split = x
    elif is_sparse(x):
        split = SparseSplit(SparseRows.of(x))
    elif isinstance(x, torch.utils.data.Dataset):
        split = stream(x)
    else:
        values, observed = tensor_of(x)
        if values.dim() < 2:
            raise ValueError(f"data of shape (datum, *x_shape) expected, got {tuple(values.shape)}")
        split = ResidentSplit(values)
    if not split.x_shape or len(split) == 0:
        raise ValueError(f"data of shape (datum, *x_shape) expected, got {(len(split), *split.x_shape)}")
    if observed is not None:
        split = split.replace(mask=observed)
    if mask is not None:
        stated = mask_of(mask, split.device)
        if stated.shape != (len(split), *split.x_shape):
            raise ValueError(f"mask has shape {tuple(stated.shape)}, the data {(len(split), *split.x_shape)}")
        split = split.replace(mask=stated if split.mask is None else split.mask & stated)
    if y is not None:
        split = split.replace(y=classes_of(y, len(split), split.device))
    if split.resident and not isinstance(x, Split):
        not_missing = seen(split.stored(slice(None)))
        if not_missing is not None:
            split = split.replace(mask=not_missing if split.mask is None else split.mask & not_missing)
    return split


def stream(source: Any, **options: Any) -> StreamedSplit:
    """Data that stay where they are and are read block by block, as one split for `fit`, `evaluate` or ``elpd_of``.

    Args:
        source: a map-style torch ``Dataset`` (see `vae_pyro.data.readers.items.Items`), the path of a file or folder in
            a format that can be read block by block, or a `vae_pyro.data.readers.store.Store`.
        options: ``scale``, ``binarize``, ``dequantize`` and ``seed``, as for `DataConfig`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing that can be streamed, an unknown option, or data that cannot be observed in the way that is
            asked for.

    >>> split = stream(torch.utils.data.TensorDataset(torch.arange(12.0).reshape(4, 3)))
    >>> len(split), split.x_shape, split.batch(slice(1, 2))[0].tolist()
    (4, (3,), [[3.0, 4.0, 5.0]])
    """
    store = source if isinstance(source, Store) else open_source(source, stream=True)
    config = DataConfig(source=store.name, **options)
    split = streamed(config, store)
    return split.fixed(derive_seed(config.seed, _BINARIZE_STREAM, 0)) if config.binarize == "static" else split
