"""Data sets as a model observes them: read, split, and scaled or binarised on the way into a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vae_pyro.core.config import Config
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.sources import DATASETS, Source, coded, like, read_source, with_columns
from vae_pyro.data.sparse import SparseRows, SparseSplit, is_sparse, is_sparse_file, read_sparse
from vae_pyro.data.split import WHOLE, Draw, Part, Split, fingerprint, observed, repeat_labelled, row_blocks
from vae_pyro.data.split import as_split as _as_split
from vae_pyro.data.streams.shares import Changed, Share
from vae_pyro.data.streams.split import StreamedSplit, open_store, streamed_kind
from vae_pyro.data.streams.stores import Extent, ImageFolder, Items, Store, native, native_type
from vae_pyro.data.tables.cells import listed
from vae_pyro.data.tables.schema import Category, Column, Schema

__all__ = [
    "WHOLE",
    "DataConfig",
    "Dataset",
    "Part",
    "SparseSplit",
    "Split",
    "StreamedSplit",
    "as_split",
    "fingerprint",
    "load_all",
    "load_data",
    "stream",
]

type Binarize = Literal["none", "dynamic", "static", "threshold"]
type Scale = Literal["auto", "unit", "none"]

_SPLIT_STREAM, _BINARIZE_STREAM, _LABEL_STREAM = 1, 2, 3
# A .npy file of so many bytes is streamed where nobody says otherwise.
_STREAM_BYTES = 1 << 31


@dataclass(frozen=True)
class Dataset:
    """A data set split for training, validation and test.

    Attributes:
        train: what `vae_pyro.fit` learns from; random observations are drawn anew at every step.
        validation: for early stopping and tuning, with fixed observations; empty where it was not wanted.
        test: held out, with fixed observations.
        config: what was loaded.
        facts: name, sizes, shape, range, kind, observation space, columns or classes, and a fingerprint.
    """

    train: Split
    validation: Split
    test: Split
    config: "DataConfig"
    facts: dict[str, Any]

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of one datum."""
        return self.train.x_shape

    def split(self, name: str) -> Split:
        """``train``, ``validation`` or ``test`` with fixed observations, as evaluation wants them.

        Raises:
            ValueError: another name, or a split without data.
        """
        if name not in ("train", "validation", "test"):
            raise ValueError(f"unknown split {name!r}; choose from train, validation, test")
        chosen: Split = getattr(self, name)
        if len(chosen) == 0:
            raise ValueError(f"split {name!r} holds no data; choose another or load with a validation_fraction above 0")
        return chosen.fixed(derive_seed(self.config.seed, _BINARIZE_STREAM, 0))


class DataConfig(Config):
    """What to load and how it is observed.

    Attributes:
        source: name or path, see `vae_pyro.data.sources.read_source`.
        root: folder of downloaded data sets, see `vae_pyro.data.sources.data_root`.
        scale: ``unit`` divides images by their full intensity, ``none`` leaves the stored values, ``auto`` is ``unit``
            for images that have one and ``none`` for everything else.
        binarize: ``dynamic`` draws every pixel from Bernoulli(intensity) anew at every step, ``static`` draws once,
            ``threshold`` cuts at half intensity. Validation and test are always drawn once, with `seed`.
        dequantize: add uniform noise of one level to quantised values, anew at every step (Theis et al. 2016,
            arXiv:1511.01844, sec. 3.1), so that a density is a bound for probabilities.
        validation_fraction: share taken out of the training data.
        test_fraction: share taken out where the source has no test data of its own.
        seed: of the split and of every fixed draw; not the seed of a fit.
        stream: leave the data where they are, and read them block by block as they are wanted; ``False`` reads them
            whole. ``None`` streams zarr folders, folders of parquet files, and ``.npy`` files of 2 GiB and more,
            whatever the machine has. The split is another one than that of data in memory, of the same sizes
            (`vae_pyro.data.streams.shares.Share`).
        given_labels: labels that model and guide are given as ``y``: ``all``, or so many of the training data, as many
            of each class, drawn with `seed`; the others are -1, unknown, as are those of validation and test data.
            ``None`` gives none.
        labelled_share: training data whose label is given are repeated until they are this share of an epoch, see
            `vae_pyro.data.split.repeat_labelled`.
        kinds: take all columns of a table, text as well, for the likelihood ``table``: kind by name where the inferred
            one is not wanted, see `vae_pyro.data.tables.infer`. ``None`` takes the columns of numbers as they are.
        columns: take these columns of a table, with these kinds and codes (those of another table), and infer nothing.
    """

    source: str
    root: str | None = None
    scale: Scale = "auto"
    binarize: Binarize = "none"
    dequantize: bool = False
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0
    stream: bool | None = None
    given_labels: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    labelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    kinds: dict[str, str | tuple[Category, ...]] | None = None
    columns: tuple[Column, ...] | None = None

    def load(self) -> Dataset:
        """Read, split and prepare.

        Raises:
            FileNotFoundError: see `vae_pyro.data.sources.read_source`.
            ValueError: likewise; or a binarization or scale that the data cannot have; or too few data to split.
        """
        store = self._store()
        if store is not None:
            return self.deal(store)
        source = self._source()
        if self.given_labels is not None and source.labels is None:
            raise ValueError(f"given_labels={self.given_labels!r} wants labels, and {self.source!r} has none")
        order = np.random.default_rng(derive_seed(self.seed, _SPLIT_STREAM)).permutation(source.values.shape[0])
        if source.test is None:
            num_test = round(self.test_fraction * len(order))
            parts = {"test": self.prepare(source, source.values, source.labels, np.sort(order[:num_test]))}
            order = order[num_test:]
        else:
            parts = {"test": self.prepare(source, *source.test, np.arange(len(source.test[0])))}
        num_validation = round(self.validation_fraction * len(order))
        parts["validation"] = self.prepare(source, source.values, source.labels, np.sort(order[:num_validation]))
        parts["train"] = self.prepare(source, source.values, source.labels, np.sort(order[num_validation:]))
        size, kind, labelled, about = source.values.shape[0], source.kind, source.labels is not None, source.about
        top = source.top
        del source  # the splits are copies, and what follows needs the room
        return self._dataset(parts, size, kind, labelled, about if top is None else {**about, "top": float(top)})

    def deal(self, store: Store) -> Dataset:
        """Split a store and prepare its splits, which stay where they are; see `vae_pyro.data.streams.shares.Share`.

        Raises:
            ValueError: see `load`.
        """
        fractions = {"test": self.test_fraction, "validation": self.validation_fraction}
        seed = derive_seed(self.seed, _SPLIT_STREAM)
        parts: dict[str, Split] = {
            name: self.streamed(Share(store, name, **fractions, seed=seed)) for name in ("train", "validation", "test")
        }
        about = {**store.about, "streamed": True}
        if store.top is not None:
            about["top"] = float(store.top)
        return self._dataset(parts, len(store), store.kind, store.labelled, about)

    @property
    def _mixed(self) -> bool:
        """Whether columns of all kinds are wanted."""
        return self.kinds is not None or self.columns is not None

    def _store(self) -> Store | None:
        """What the source is streamed from; ``None`` where it is read whole."""
        if self._mixed:
            if self.stream:
                raise ValueError("a table with columns of all kinds cannot be streamed; leave stream out")
            return None
        if self.source in DATASETS:
            if self.stream:
                raise ValueError(f"data set {self.source!r} is small, and cannot be streamed; leave stream out")
            return None
        path = Path(self.source)
        kind = streamed_kind(path)
        if self.stream is False or (self.stream is None and (kind is None or not _large(path))):
            return None
        return open_store(path)

    def _source(self) -> Source:
        """The source in memory."""
        path = Path(self.source)
        if self.source not in DATASETS and not self._mixed and is_sparse_file(path):
            matrix, stated = read_sparse(path)
            labels, about = coded(stated)
            return Source("table", matrix, labels, about={"sparse": True, "entries": int(matrix.nnz), **about})
        if self.source in DATASETS or not _by_pieces(path) or self._mixed:
            return read_source(self.source, self.root, kinds=self.kinds, columns=self.columns)
        store = open_store(path)
        labels = store.labels(np.arange(len(store)))
        return Source(store.kind, store.read(0, len(store)), labels, top=store.top, about=store.about)

    def _dataset(self, parts: dict[str, Split], size: int, kind: str, labelled: bool, about: dict[str, Any]) -> Dataset:
        if not len(parts["train"]) or not len(parts["test"]):
            raise ValueError(
                f"{size} data are too few for validation_fraction={self.validation_fraction} and "
                f"test_fraction={self.test_fraction}"
            )
        if self.given_labels is not None:
            parts = {name: self._given(name, part) for name, part in parts.items()}
        facts = self._facts(parts, kind, labelled, about)
        # Streams 0, 1, 2 keep the draws of the splits apart; `Dataset.split` fixes a random training set likewise.
        for stream, name in enumerate(("train", "validation", "test")):
            if name != "train" or self.binarize == "static":
                parts[name] = parts[name].fixed(derive_seed(self.seed, _BINARIZE_STREAM, stream))
        return Dataset(**parts, config=self, facts=facts)

    def _given(self, name: str, part: Split) -> Split:
        """A split with the labels that the programs are given."""
        if isinstance(part, StreamedSplit):
            raise ValueError("given_labels wants data in memory; pass stream=False")
        assert part.labels is not None
        if self.given_labels == "all":
            return replace(part, y=part.labels.to(torch.int64))
        y = torch.full((len(part),), -1)
        if name == "train":
            assert self.given_labels is not None
            rows = balanced(part.labels.numpy(), self.given_labels, derive_seed(self.seed, _LABEL_STREAM))
            y[rows] = part.labels[rows].to(torch.int64)
            if self.labelled_share is not None:
                return repeat_labelled(replace(part, y=y), self.labelled_share)
        return replace(part, y=y)

    def prepare(self, source: Source, values: Any, labels: Any, rows: np.ndarray[Any, Any]) -> Split:
        """Some rows of a source, observed as this configuration says.

        Raises:
            ValueError: the values cannot be observed in that way.
        """
        dtype = native_type(values.dtype)
        view = self._view(source.top, dtype, lambda: (float(source.values.min()), float(source.values.max())))
        if is_sparse(values):
            some_rows = values[rows] if view.cut is None else (values[rows] >= view.cut).astype(np.uint8)
            return SparseSplit(
                values=SparseRows.of(some_rows),
                labels=None if labels is None else torch.from_numpy(np.ascontiguousarray(labels[rows])),
                ids=torch.from_numpy(np.ascontiguousarray(rows)),
                top=view.top,
                draw=view.draw,
                space=view.space,
            )
        chosen = torch.from_numpy(np.empty((len(rows), *values.shape[1:]), np.uint8 if view.cut is not None else dtype))
        mask: Tensor | None = None
        for some in row_blocks(len(rows), prod(values.shape[1:])):
            block = torch.from_numpy(native(values[rows[some]]))
            seen = observed(block)
            if seen is not None:
                mask = torch.ones(chosen.shape, dtype=torch.bool) if mask is None else mask
                mask[some] = seen
            chosen[some] = block if view.cut is None else block >= view.cut
        if source.mask is not None:
            stated = torch.from_numpy(np.ascontiguousarray(source.mask[rows]))
            mask = stated if mask is None else stated & mask
        return Split(
            values=chosen,
            labels=None if labels is None else torch.from_numpy(np.ascontiguousarray(labels[rows])),
            ids=torch.from_numpy(np.ascontiguousarray(rows)),
            mask=mask,
            top=view.top,
            draw=view.draw,
            space=Schema(**source.about["schema"]).space if "schema" in source.about else view.space,
        )

    def streamed(self, store: Store) -> StreamedSplit:
        """All of a store, observed as this configuration says.

        Raises:
            ValueError: the values cannot be observed in that way.
        """
        view = self._view(store.top, store.dtype, lambda: (store.extent.low, store.extent.high))
        if view.cut is not None:
            cut = partial(_cut, at=view.cut)
            store = Changed(store, cut, dtype=np.uint8, extent=Extent(0.0, 1.0, True), about=f"at least {view.cut}")
        return StreamedSplit(store, top=view.top, draw=view.draw, space=view.space)

    def _view(self, top: float | None, dtype: np.dtype[Any], reach: Callable[[], tuple[float, float]]) -> "_View":
        """How values are observed that have this full intensity and type, and reach from here to there."""
        unit = self.scale == "unit" or (self.scale == "auto" and top is not None) or self.binarize != "none"
        if unit and top is None:
            low, high = reach()
            if low < 0 or high > 1:
                way = "binarize" if self.binarize != "none" else "scale='unit'"
                raise ValueError(
                    f"{way} wants intensities, got [{low:g}, {high:g}] without a known top; scale to [0, 1]"
                )
            top = 1.0
        if self.binarize == "threshold" and not self.dequantize:
            assert top is not None
            return _View(None, "none", "0/1, intensity at least half", cut=top / 2)
        space = "the stored values" if not unit or top is None else f"stored values / {top:g}"
        draw: Draw = "none"
        if self.dequantize:
            if self.binarize != "none":
                raise ValueError("dequantize=True and a binarization exclude each other; choose one")
            if dtype.kind == "f":
                raise ValueError(f"dequantize=True wants integers, {self.source!r} holds {dtype}")
            draw = "dequantize"
            space = (
                "stored values + uniform noise"
                if not unit or top is None
                else (f"(stored values + uniform noise) / {top + 1:g}")
            )
        elif self.binarize != "none":
            draw, space = "binarize", "0/1, one draw of Bernoulli(intensity)"
        return _View(top if unit else None, draw, space)

    def _facts(self, parts: dict[str, Split], kind: str, labelled: bool, about: dict[str, Any]) -> dict[str, Any]:
        summary = parts["train"].summary()
        for name in ("validation", "test"):
            if len(parts[name]):
                parts[name].summary()  # values that are not finite are refused wherever they fell
        # Said only of data that have such, so that the facts of others stay as they were.
        missing: dict[str, Any] = {}
        train = parts["train"]
        if train.mask is not None:
            missing["missing"] = 1 - float(train.mask.sum(dtype=torch.float64)) / train.mask.numel()
        if train.y is not None:
            missing["given_labels"] = int((train.y >= 0).sum())
        return {
            "name": self.source,
            "kind": kind,
            "x_shape": list(parts["train"].x_shape),
            "sizes": {name: len(parts[name]) for name in ("train", "validation", "test")},
            "range": [summary.low, summary.high],
            "integral": summary.integral,
            "space": parts["test"].space,
            "evaluation": self._evaluation(),
            "labels": labelled,
            **missing,
            "fingerprint": fingerprint(*(parts[name] for name in ("train", "validation", "test"))),
            **about,
        }

    def _evaluation(self) -> str:
        if self.binarize in ("dynamic", "static"):
            return f"binarised once with seed {self.seed}, the same for every run and model"
        if self.dequantize:
            return f"dequantised once with seed {self.seed}, the same for every run and model"
        return "no random element"


@dataclass(frozen=True)
class _View:
    """How stored values become observations: as in `Split`, and where they are cut."""

    top: float | None
    draw: Draw
    space: str
    cut: float | None = None


def _cut(values: np.ndarray[Any, Any], index: np.ndarray[Any, Any], *, at: float) -> np.ndarray[Any, Any]:
    return (values >= at).astype(np.uint8)


def _by_pieces(path: Path) -> bool:
    """Whether a path is a zarr folder or one of parquet files."""
    return path.suffix == ".zarr" or (path.is_dir() and streamed_kind(path) is not ImageFolder)


def _large(path: Path) -> bool:
    """Whether a source that can be streamed is, where nobody says."""
    if _by_pieces(path):
        return True
    return path.suffix == ".npy" and path.is_file() and path.stat().st_size >= _STREAM_BYTES


def balanced(labels: np.ndarray[Any, Any], count: int, seed: int) -> Tensor:
    """Rows of ``count`` data, as many of each class, rising.

    Args:
        labels: classes ``(datum,)``.
        count: a multiple of the number of classes.
        seed: of the choice.

    Raises:
        ValueError: no multiple, or a class that has too few data.
    """
    classes = np.unique(labels)
    each, rest = divmod(count, len(classes))
    if rest:
        raise ValueError(
            f"given_labels={count} is no multiple of the {len(classes)} classes, of which each gets as many"
        )
    random, rows = np.random.default_rng(seed), []
    for label in classes:
        members = np.flatnonzero(labels == label)
        if len(members) < each:
            raise ValueError(
                f"given_labels={count} wants {each} training data of class {label}, which has {len(members)}"
            )
        rows.append(random.permutation(members)[:each])
    return torch.from_numpy(np.sort(np.concatenate(rows)))


def load_data(name_or_path: str | Path, **options: Any) -> Dataset:
    """Load a data set by name or path, with a fixed split.

    Args:
        name_or_path: see `vae_pyro.data.sources.read_source`; ``vae-pyro datasets`` lists the names.
        options: fields of `DataConfig`: ``root``, ``scale``, ``binarize``, ``dequantize``, ``validation_fraction``,
            ``test_fraction``, ``seed``, ``stream``, ``given_labels``,
            ``labelled_share``, ``kinds``, ``columns``.

    Returns:
        The splits and the facts.

    Raises:
        FileNotFoundError: no such file, or a data set that is absent and cannot be downloaded.
        ValueError: an unknown name or option, or data that cannot be observed in the wanted way.

    >>> data = load_data("digits")
    >>> len(data.train), len(data.validation), len(data.test), data.x_shape
    (1294, 144, 359, (1, 8, 8))
    """
    return DataConfig(source=str(name_or_path), **options).load()


def load_all(config: DataConfig, facts: Mapping[str, Any] | None = None) -> Split:
    """All of a source, its own test data included, as one split with fixed observations, prepared as ``config`` says.

    Args:
        config: where the data are, and how they are observed; with ``given_labels="all"`` the labels of a source that
            has them are given as ``y``.
        facts: of a run's data, which these are to be like: see `vae_pyro.data.sources.like`. Numbers between 0 and 1
            count as intensities where the run's are.

    Raises:
        FileNotFoundError: see `load_data`.
        ValueError: likewise; or data that cannot be like those of the run.
    """
    fixed = derive_seed(config.seed, _BINARIZE_STREAM, 0)
    store = config._store()
    if store is not None:
        if facts is not None:
            _require_like(store, config.source, facts)
        return config.streamed(store).fixed(fixed)
    source = config._source()
    if facts is not None:
        source = like(source, facts)
    values, labels = source.values, source.labels
    if source.test is not None:
        values = np.concatenate([values, source.test[0]])
        labels = None if labels is None or source.test[1] is None else np.concatenate([labels, source.test[1]])
    part = config.prepare(source, values, labels, np.arange(values.shape[0]))
    unit = facts is not None and facts.get("top") is not None and source.top is None
    del source, values, labels  # of which it is a copy
    if config.given_labels == "all" and part.labels is not None:
        part = replace(part, y=part.labels.to(torch.int64))
    if unit and facts is not None and part.draw == "none" and part.mask is None:
        summary = part.summary()
        if summary.low >= 0 and summary.high <= 1:
            part = replace(part, space=facts["space"])
    return part.fixed(fixed)


def _require_like(store: Store, name: str, facts: Mapping[str, Any]) -> None:
    """Refuse streamed data that only a change would make like those of a run."""
    wanted, named, top = facts.get("columns"), store.about.get("columns"), facts.get("top")
    if wanted and named and with_columns(named, wanted) is not None:
        raise ValueError(
            f"the columns of {name!r}, which is streamed, stand in another order than {listed(wanted)}; write them in "
            "this order"
        )
    if top is not None and store.top is not None and store.top != top:
        raise ValueError(
            f"intensities of {name!r}, which is streamed, are full at {store.top:g}, those of the model at {top:g}; "
            "write them on that scale, or read them whole"
        )


def as_split(x: Any, mask: Any = None, y: Any = None) -> Split:
    """A split from what a user holds: a `Split`, a tensor, an array, or a scipy sparse matrix, which stays sparse.

    Args:
        x: numbers ``(datum, *x_shape)``; an element of a dense array that is NaN is not observed.
        mask: boolean, shape of ``x``, true where observed; sparse data have none.
        y: classes that the programs are given, ``(datum,)``; -1 where one is unknown.

    Raises:
        ValueError: not numbers, no data, or a mask or classes of another shape.
    """
    return _as_split(SparseSplit(SparseRows.of(x)) if is_sparse(x) else x, mask, y)


def stream(source: Any, **options: Any) -> StreamedSplit:
    """Data that stay where they are and are read as they are wanted, as one split for `fit`, `evaluate` or ``elpd_of``.

    Args:
        source: a map-style torch ``Dataset`` (see `vae_pyro.data.streams.stores.Items`), a path (see
            `vae_pyro.data.streams.split.open_store`), or a `vae_pyro.data.streams.stores.Store`.
        options: ``scale``, ``binarize``, ``dequantize`` and ``seed``, as for `DataConfig`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing that can be streamed, an unknown option, or data that cannot be observed in the wanted way.

    >>> split = stream(torch.utils.data.TensorDataset(torch.arange(12.0).reshape(4, 3)))
    >>> len(split), split.x_shape, split.batch(slice(1, 2))[0].tolist()
    (4, (3,), [[3.0, 4.0, 5.0]])
    """
    if isinstance(source, Store):
        store = source
    else:
        store = open_store(source) if isinstance(source, str | Path) else Items(source)
    config = DataConfig(source=store.name, **options)
    split = config.streamed(store)
    return split.fixed(derive_seed(config.seed, _BINARIZE_STREAM, 0)) if config.binarize == "static" else split
