"""Data as a model observes them: splits in memory, scaled and binarised on the way into a step."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vae_pyro.config import Config
from vae_pyro.isolation import derive_seed
from vae_pyro.likelihoods import DataSummary
from vae_pyro.sources import Source, read_source
from vae_pyro.svi import batches

type Words = Callable[[int], Tensor]
type Binarize = Literal["none", "dynamic", "static", "threshold"]
type Scale = Literal["auto", "unit", "none"]

_SPLIT_STREAM, _BINARIZE_STREAM = 1, 2


@dataclass(frozen=True)
class Part:
    """The share of every batch that one of several processes takes: disjoint shares, which together are the batch.

    Attributes:
        rank: which one, counted from 0.
        of: how many there are.
    """

    rank: int = 0
    of: int = 1

    def bounds(self, size: int) -> tuple[int, int]:
        """Where the share of a batch of ``size`` data begins and ends; shares differ by one datum at most."""
        return size * self.rank // self.of, size * (self.rank + 1) // self.of

    def take(self, index: Tensor) -> Tensor:
        """The share of a batch given by its rows."""
        begin, end = self.bounds(len(index))
        return index[begin:end]


WHOLE = Part()


@dataclass(frozen=True)
class Split:
    """Data of one split in memory, and how stored numbers become observations.

    Attributes:
        values: as stored, ``(datum, *x_shape)``; bytes stay bytes.
        labels: ``(datum,)``, or ``None``.
        ids: row of each datum in its source, ``(datum,)``.
        mask: boolean, shape of ``values``, true where observed; ``None`` where everything is.
        top: divides the stored values where it is given, so that full intensity is 1.
        draw: ``binarize`` draws Bernoulli(value), ``dequantize`` adds uniform noise of one level, anew at each call.
        space: in words, what log densities of these observations are densities of.
    """

    values: Tensor
    labels: Tensor | None = None
    ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    mask: Tensor | None = None
    top: float | None = None
    draw: Literal["none", "binarize", "dequantize"] = "none"
    space: str = "the values as given"

    def __post_init__(self) -> None:
        if self.ids.numel() == 0:
            object.__setattr__(self, "ids", torch.arange(len(self.values)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of one datum."""
        return tuple(self.values.shape[1:])

    def batch(self, index: Tensor | slice, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor | None]:
        """Observations of some data, drawn from torch's generator where they are random.

        Args:
            index: rows.
            dtype: floating-point type of the result.

        Returns:
            x of shape ``(datum, *x_shape)`` and its mask.
        """
        x = self.values[index].to(dtype)
        noise = torch.rand_like(x) if self.draw != "none" else x
        return self._observe(x, noise), None if self.mask is None else self.mask[index]

    def epoch(
        self, batch_size: int, seed: int, bits: Words, *, start: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, ...]]:
        """Raw batches of one epoch, each datum once, in a random order.

        Args:
            batch_size: data in a step; the last batch is smaller where they do not divide.
            seed: decides the order.
            bits: of random observations, see `raw`.
            start: number of the first batch wanted. The words of those before it are passed over, so that an epoch
                goes on as if it had not been interrupted.
            part: the share of each batch that is wanted.

        Yields:
            What `raw` gives.
        """
        for number, rows in enumerate(batches(len(self), batch_size, seed, self.values.device)):
            index = part.take(rows)
            if number >= start:
                yield self.raw(index, bits)
            elif self.draw != "none":
                bits(len(index) * self.values[0].numel())

    def raw(self, index: Tensor, bits: Words) -> tuple[Tensor, ...]:
        """Rows as they are stored, for `observe`: values, random words where observing draws, and the mask.

        Args:
            index: rows.
            bits: gives so many random 32-bit words as an int32 tensor, see `vae_pyro.svi.BitStream`.
        """
        values = self.values.index_select(0, index)
        raw = [values]
        if self.draw != "none":
            raw.append(bits(values.numel()).view(values.shape).to(values.device))
        if self.mask is not None:
            raw.append(self.mask.index_select(0, index))
        return tuple(raw)

    def observe(
        self, values: Tensor, *rest: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[tuple[Tensor], dict[str, Tensor]]:
        """What `raw` gave, as the arguments of model and guide: ``((x,), {"mask": mask})``.

        A pure function of tensors, so that it can be part of a compiled step.
        """
        x = values.to(dtype)
        kwargs = {} if self.mask is None else {"mask": rest[-1]}
        if self.draw == "none":
            return (self._observe(x, x),), kwargs
        # The upper 24 bits of a word: every one of the 2^24 uniform numbers is exact in float32.
        noise = ((rest[0] >> 8) & 0xFFFFFF).to(dtype) * 2.0**-24
        return (self._observe(x, noise),), kwargs

    def _observe(self, x: Tensor, noise: Tensor) -> Tensor:
        if self.draw == "dequantize":
            return (x + noise) / (1 if self.top is None else self.top + 1)
        if self.draw == "binarize":
            return (noise * (1 if self.top is None else self.top) < x).to(x.dtype)
        return x if self.top is None else x / self.top

    def fixed(self, seed: int) -> "Split":
        """The same data with every random observation drawn once, with ``seed``.

        The noise is NumPy's PCG64, whose stream is the same on every machine and release; torch's is not.
        """
        if self.draw == "none":
            return self
        noise = torch.from_numpy(np.random.default_rng(seed).random(tuple(self.values.shape), dtype=np.float32))
        x = self._observe(self.values.to(torch.float32), noise.to(self.values.device))
        values = x.to(torch.uint8) if self.draw == "binarize" else x
        return replace(self, values=values, top=None, draw="none")

    def to(self, device: torch.device) -> "Split":
        """The same data on another device."""
        move = {name: getattr(self, name) for name in ("values", "labels", "mask")}
        return replace(self, **{name: value.to(device) for name, value in move.items() if value is not None})

    def take(self, index: Tensor | slice) -> "Split":
        """Some of the data."""
        parts = {name: getattr(self, name) for name in ("values", "labels", "mask", "ids")}
        return replace(self, **{name: value[index] for name, value in parts.items() if value is not None})

    def summary(self) -> DataSummary:
        """Range and lattice of the observations, for the likelihood's check.

        Raises:
            ValueError: an observed value is not finite; the message counts them and names the first.
        """
        values = self.values
        if values.dtype.is_floating_point:
            bad = ~values.isfinite()
            if self.mask is not None:
                bad &= self.mask
            if bad.any():
                first = tuple(int(i) for i in bad.nonzero()[0])
                raise ValueError(
                    f"{int(bad.sum())} values are not finite, the first {values[first].item()} at {first}; pass a mask "
                    "that is false there, or impute them"
                )
        if self.mask is not None:
            values = values[self.mask]
        low, high = float(values.min()), float(values.max())
        if self.draw == "binarize":
            return DataSummary(0.0, 1.0, True)
        if self.draw == "dequantize":
            top = 1.0 if self.top is None else self.top + 1
            return DataSummary(low / top, (high + 1) / top, False)
        integral = not values.dtype.is_floating_point or bool((values == values.round()).all())
        if self.top is None:
            return DataSummary(low, high, integral, 1.0 if integral else None)
        two_levels = bool(((values == 0) | (values == self.top)).all())
        return DataSummary(low / self.top, high / self.top, two_levels, 1 / self.top if integral else None)


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
        source: name or path, see `vae_pyro.sources.read_source`.
        root: folder of downloaded data sets, see `vae_pyro.sources.data_root`.
        scale: ``unit`` divides images by their full intensity, ``none`` leaves the stored values, ``auto`` is ``unit``
            for images that have one and ``none`` for everything else.
        binarize: ``dynamic`` draws every pixel from Bernoulli(intensity) anew at every step, ``static`` draws once,
            ``threshold`` cuts at half intensity. Validation and test are always drawn once, with `seed`.
        dequantize: add uniform noise of one level to quantised values, anew at every step (Theis et al. 2016,
            arXiv:1511.01844, sec. 3.1), so that a density is a bound for probabilities.
        validation_fraction: share taken out of the training data.
        test_fraction: share taken out where the source has no test data of its own.
        seed: of the split and of every fixed draw; not the seed of a fit.
    """

    source: str
    root: str | None = None
    scale: Scale = "auto"
    binarize: Binarize = "none"
    dequantize: bool = False
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0

    def load(self) -> Dataset:
        """Read, split and prepare.

        Raises:
            FileNotFoundError: see `vae_pyro.sources.read_source`.
            ValueError: likewise; or a binarization or scale that the data cannot have; or too few data to split.
        """
        source = read_source(self.source, self.root)
        order = np.random.default_rng(derive_seed(self.seed, _SPLIT_STREAM)).permutation(len(source.values))
        if source.test is None:
            num_test = round(self.test_fraction * len(order))
            parts = {"test": self.prepare(source, source.values, source.labels, np.sort(order[:num_test]))}
            order = order[num_test:]
        else:
            values, labels = source.test
            parts = {"test": self.prepare(source, values, labels, np.arange(len(values)))}
        num_validation = round(self.validation_fraction * len(order))
        parts["validation"] = self.prepare(source, source.values, source.labels, np.sort(order[:num_validation]))
        parts["train"] = self.prepare(source, source.values, source.labels, np.sort(order[num_validation:]))
        if not len(parts["train"]) or not len(parts["test"]):
            raise ValueError(
                f"{len(source.values)} data are too few for validation_fraction={self.validation_fraction} and "
                f"test_fraction={self.test_fraction}"
            )
        facts = self._facts(source, parts)
        # Streams 0, 1, 2 keep the draws of the splits apart; `Dataset.split` fixes a random training set likewise.
        for stream, name in enumerate(("train", "validation", "test")):
            if name != "train" or self.binarize == "static":
                parts[name] = parts[name].fixed(derive_seed(self.seed, _BINARIZE_STREAM, stream))
        return Dataset(**parts, config=self, facts=facts)

    def prepare(self, source: Source, values: Any, labels: Any, rows: np.ndarray[Any, Any]) -> Split:
        """Some rows of a source, observed as this configuration says.

        Raises:
            ValueError: the values cannot be observed in that way.
        """
        chosen = values[rows]
        if chosen.dtype == np.bool_:
            chosen = chosen.astype(np.uint8)
        elif chosen.dtype.kind in "ui" and chosen.dtype != np.uint8:
            chosen = chosen.astype(np.int64)
        tensor = torch.from_numpy(np.ascontiguousarray(chosen))
        unit = self.scale == "unit" or (self.scale == "auto" and source.top is not None) or self.binarize != "none"
        top = source.top
        if unit and top is None:
            low, high = float(source.values.min()), float(source.values.max())
            if low < 0 or high > 1:
                way = "binarize" if self.binarize != "none" else "scale='unit'"
                raise ValueError(
                    f"{way} wants intensities, got [{low:g}, {high:g}] without a known top; scale to [0, 1]"
                )
            top = 1.0
        space = "the stored values" if not unit or top is None else f"stored values / {top:g}"
        draw: Any = "none"
        if self.dequantize:
            if self.binarize != "none":
                raise ValueError("dequantize=True and a binarization exclude each other; choose one")
            if tensor.dtype.is_floating_point:
                raise ValueError(f"dequantize=True wants integers, {self.source!r} holds {tensor.dtype}")
            draw = "dequantize"
            space = (
                "stored values + uniform noise"
                if not unit or top is None
                else (f"(stored values + uniform noise) / {top + 1:g}")
            )
        if self.binarize == "threshold":
            assert top is not None
            tensor, unit, space = (tensor >= top / 2).to(torch.uint8), False, "0/1, intensity at least half"
        elif self.binarize != "none":
            draw, space = "binarize", "0/1, one draw of Bernoulli(intensity)"
        return Split(
            values=tensor,
            labels=None if labels is None else torch.from_numpy(np.ascontiguousarray(labels[rows])),
            ids=torch.from_numpy(np.ascontiguousarray(rows)),
            top=top if unit else None,
            draw=draw,
            space=space,
        )

    def _facts(self, source: Source, parts: dict[str, Split]) -> dict[str, Any]:
        summary = parts["train"].summary()
        for name in ("validation", "test"):
            if len(parts[name]):
                parts[name].summary()  # values that are not finite are refused wherever they fell
        return {
            "name": self.source,
            "kind": source.kind,
            "x_shape": list(parts["train"].x_shape),
            "sizes": {name: len(parts[name]) for name in ("train", "validation", "test")},
            "range": [summary.low, summary.high],
            "integral": summary.integral,
            "space": parts["test"].space,
            "evaluation": self._evaluation(),
            "labels": source.labels is not None,
            "fingerprint": fingerprint(*(parts[name] for name in ("train", "validation", "test"))),
            **source.about,
        }

    def _evaluation(self) -> str:
        if self.binarize in ("dynamic", "static"):
            return f"binarised once with seed {self.seed}, the same for every run and model"
        if self.dequantize:
            return f"dequantised once with seed {self.seed}, the same for every run and model"
        return "no random element"


def load_data(name_or_path: str | Path, **options: Any) -> Dataset:
    """Load a data set by name or path, with a fixed split.

    Args:
        name_or_path: see `vae_pyro.sources.read_source`; ``vae-pyro datasets`` lists the names.
        options: fields of `DataConfig`: ``root``, ``scale``, ``binarize``, ``dequantize``, ``validation_fraction``,
            ``test_fraction``, ``seed``.

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


def fingerprint(*splits: Split) -> str:
    """SHA-256 of the stored values and masks, by which a run notices that its data have changed."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.values, split.mask):
            digest.update(b"|")
            if tensor is not None:
                digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()


def load_all(config: DataConfig) -> Split:
    """All of a source, its own test data included, as one split with fixed observations, prepared as ``config`` says.

    Raises:
        FileNotFoundError: see `load_data`.
        ValueError: likewise.
    """
    source = read_source(config.source, config.root)
    values, labels = source.values, source.labels
    if source.test is not None:
        values = np.concatenate([values, source.test[0]])
        labels = None if labels is None or source.test[1] is None else np.concatenate([labels, source.test[1]])
    part = config.prepare(source, values, labels, np.arange(len(values)))
    return part.fixed(derive_seed(config.seed, _BINARIZE_STREAM, 0))


def as_split(x: Any, mask: Any = None) -> Split:
    """A split from what a user holds: a `Split`, a tensor, or an array of shape ``(datum, *x_shape)``.

    Raises:
        ValueError: not numbers, no data, or a mask of another shape.
    """
    if isinstance(x, np.ndarray) and x.dtype.kind in "ui" and x.dtype != np.uint8:
        x = x.astype(np.int64)  # torch does not compute with unsigned integers of more than 8 bits
    split = x if isinstance(x, Split) else Split(torch.as_tensor(x))
    if mask is not None:
        split = replace(split, mask=torch.as_tensor(mask, dtype=torch.bool, device=split.values.device))
    if split.values.dim() < 2 or len(split) == 0:
        raise ValueError(f"data of shape (datum, *x_shape) wanted, got {tuple(split.values.shape)}")
    if split.mask is not None and split.mask.shape != split.values.shape:
        raise ValueError(f"mask has shape {tuple(split.mask.shape)}, the data {tuple(split.values.shape)}")
    return split
