"""Data of one split, and how stored numbers become observations."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isfinite, prod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.minibatches import batches
from vae_pyro.data.summary import DataSummary

type Words = Callable[[int], Tensor]
# What model and guide are given beside x: ``mask`` and ``y``, where there are such.
type Given = dict[str, Any]
type Draw = Literal["none", "binarize", "dequantize"]

# So many numbers of data in memory are converted at once, which then want no second copy. On a CPU, torch gives so few
# to one thread, which waits for no other; a GPU wants more.
_CPU_BLOCK, _GPU_BLOCK = (1 << 15) - 1, 1 << 24


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


def row_blocks(count: int, width: int, device: str = "cpu") -> Iterator[slice]:
    """Consecutive rows, all ``count`` of them in small blocks; a row has ``width`` numbers."""
    size = max((_CPU_BLOCK if device == "cpu" else _GPU_BLOCK) // max(width, 1), 1)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


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
        y: classes that the programs are given, ``(datum,)`` of int64, -1 where one is unknown; ``None`` gives none.
    """

    values: Tensor
    labels: Tensor | None = None
    ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    mask: Tensor | None = None
    top: float | None = None
    draw: Draw = "none"
    space: str = "the values as given"
    y: Tensor | None = None

    def __post_init__(self) -> None:
        if self.ids.numel() == 0:
            object.__setattr__(self, "ids", torch.arange(len(self.values)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of one datum."""
        return tuple(self.values.shape[1:])

    @property
    def resident(self) -> bool:
        """Whether all values are in memory."""
        return True

    @property
    def head(self) -> Tensor:
        """The first datum as it is stored, ``(1, *x_shape)``: shape, type and device of all of them."""
        return self.values[:1]

    @property
    def device(self) -> torch.device:
        """Where batches are handed out."""
        return self.values.device

    def batch(self, index: Tensor | slice, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Given]:
        """Observations of some data, drawn from torch's generator where they are random.

        Args:
            index: rows.
            dtype: floating-point type of the result.

        Returns:
            x of shape ``(datum, *x_shape)``, and what the programs are given beside it: ``mask`` and ``y``, where there
            are such.
        """
        x = self.values[index].to(dtype)
        noise = torch.rand_like(x) if self.draw != "none" else x
        beside = {"mask": self.mask, "y": self.y}
        return self._observe(x, noise), {name: value[index] for name, value in beside.items() if value is not None}

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
        """Rows as they are stored, for `observe`: values, random words where observing draws, mask and classes.

        Args:
            index: rows.
            bits: gives so many random 32-bit words as an int32 tensor, see `vae_pyro.core.minibatches.BitStream`.
        """
        values = self.values.index_select(0, index)
        raw = [values]
        if self.draw != "none":
            raw.append(bits(values.numel()).view(values.shape).to(values.device))
        raw += [beside.index_select(0, index) for beside in (self.mask, self.y) if beside is not None]
        return tuple(raw)

    def observe(self, values: Tensor, *rest: Tensor, dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor], Given]:
        """What `raw` gave, as the arguments of model and guide: ``((x,), {"mask": mask, "y": y})``.

        A pure function of tensors, so that it can be part of a compiled step.
        """
        x, left = values.to(dtype), list(rest)
        noise = x
        if self.draw != "none":
            # The upper 24 bits of a word: every one of the 2^24 uniform numbers is exact in float32.
            noise = ((left.pop(0) >> 8) & 0xFFFFFF).to(dtype) * 2.0**-24
        names = [name for name, value in (("mask", self.mask), ("y", self.y)) if value is not None]
        return (self._observe(x, noise),), dict(zip(names, left, strict=True))

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
        random = np.random.default_rng(seed)
        kind = torch.uint8 if self.draw == "binarize" else torch.float32
        values = torch.empty(self.values.shape, dtype=kind, device=self.device)
        for rows in self._blocks():
            x = self.values[rows].to(torch.float32)
            # Block after block these are the numbers that one call would give.
            noise = torch.from_numpy(random.random(tuple(x.shape), dtype=np.float32))
            values[rows] = self._observe(x, noise.to(self.device))
        return replace(self, values=values, top=None, draw="none")

    def _blocks(self) -> Iterator[slice]:
        return row_blocks(len(self), prod(self.x_shape), self.device.type)

    def to(self, device: torch.device) -> "Split":
        """The same data on another device."""
        move = {name: getattr(self, name) for name in ("values", "labels", "mask", "y")}
        return replace(self, **{name: value.to(device) for name, value in move.items() if value is not None})

    def take(self, index: Tensor | slice) -> "Split":
        """Some of the data."""
        parts = {name: getattr(self, name) for name in ("values", "labels", "mask", "ids", "y")}
        held = {name: value for name, value in parts.items() if value is not None}
        if isinstance(index, slice):
            return replace(self, **{name: value[index] for name, value in held.items()})
        # Some parts stay in the host's memory (ids), wherever the values are.
        return replace(self, **{name: value[index.to(value.device)] for name, value in held.items()})

    def between(self, start: int, stop: int) -> "Split":
        """Consecutive data, in memory only where all of them are."""
        return self.take(slice(start, stop))

    def sample(self, count: int, seed: int) -> "Split":
        """So many data, or all where there are fewer, chosen at random and in a random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.take(order[:count].to(self.device))

    def summary(self) -> DataSummary:
        """Range and lattice of the observations, for the likelihood's check.

        Raises:
            ValueError: an observed value is not finite; the message counts them and names the first.
        """
        low, high, bad, first = [], [], 0, ""
        floating, top = self.values.dtype.is_floating_point, self.top
        integral, two_levels = True, top is not None
        for rows in self._blocks():
            values = self.values[rows] if self.mask is None else self.values[rows][self.mask[rows]]
            if values.numel() == 0:
                continue
            low.append(float(values.min()))
            high.append(float(values.max()))
            if not (isfinite(low[-1]) and isfinite(high[-1])):  # a NaN is the least and the most
                count, place = self._not_finite(rows)
                bad, first = bad + count, first or place
            integral = integral and (not floating or bool((values == values.round()).all()))
            two_levels = two_levels and bool(((values == 0) | (values == top)).all())
        if bad:
            raise ValueError(
                f"{bad} values are not finite, the first {first}; pass a mask that is false there, or impute them"
            )
        if not low:
            raise ValueError(f"none of {len(self)} data has a value that is observed; a summary wants one")
        return self._summary(min(low), max(high), integral, two_levels)

    def _not_finite(self, rows: slice) -> tuple[int, str]:
        """How many observed values of some rows are not finite, and the first of them with its place."""
        values = self.values[rows]
        bad = ~values.isfinite()
        if self.mask is not None:
            bad &= self.mask[rows]
        row, *place = (int(i) for i in bad.nonzero()[0])
        return int(bad.sum()), f"{values[(row, *place)].item()} at {(rows.start + row, *place)}"

    def _summary(self, low: float, high: float, integral: bool, two_levels: bool) -> DataSummary:
        """Of the observations, from the stored values; ``two_levels`` says that these are all 0 or `top`."""
        if self.draw == "binarize":
            return DataSummary(0.0, 1.0, True)
        if self.draw == "dequantize":
            top = 1.0 if self.top is None else self.top + 1
            return DataSummary(low / top, (high + 1) / top, False)
        if self.top is None:
            return DataSummary(low, high, integral, 1.0 if integral else None)
        return DataSummary(low / self.top, high / self.top, two_levels, 1 / self.top if integral else None)

    def feed(self, digest: "hashlib._Hash") -> None:
        """Add what a run's fingerprint is made of: the stored values, the mask, and the classes that are given."""
        for tensor in (self.values, self.mask, *(() if self.y is None else (self.y,))):
            digest.update(b"|")
            if tensor is not None:
                for rows in self._blocks():
                    digest.update(np.ascontiguousarray(tensor[rows].cpu().numpy()).reshape(-1).view(np.uint8))


def fingerprint(*splits: Split) -> str:
    """SHA-256 of the stored values and masks, by which a run notices that its data have changed.

    Of streamed data it covers what `vae_pyro.data.streams.stores.Store.digest` covers.
    """
    digest = hashlib.sha256()
    for split in splits:
        split.feed(digest)
    return digest.hexdigest()


def as_split(x: Any, mask: Any = None, y: Any = None) -> Split:
    """A split from what a user holds: a `Split`, a tensor, or an array of shape ``(datum, *x_shape)``.

    Args:
        x: numbers; an element that is NaN is not observed.
        mask: boolean, shape of ``x``, true where observed; a mask that a split has of its own holds as well.
        y: classes that the programs are given, ``(datum,)``; -1 where one is unknown.

    Raises:
        ValueError: not numbers, no data, or a mask or classes of another shape.
    """
    if isinstance(x, np.ndarray) and x.dtype.kind in "ui" and x.dtype != np.uint8:
        x = x.astype(np.int64)  # torch does not compute with unsigned integers of more than 8 bits
    split = x if isinstance(x, Split) else Split(torch.as_tensor(x))
    if mask is not None:
        beside = torch.as_tensor(mask, dtype=torch.bool, device=split.device)
        # What either hides is hidden; another shape is refused below.
        both = split.mask is not None and split.mask.shape == beside.shape
        split = replace(split, mask=split.mask & beside if both and split.mask is not None else beside)
    if y is not None:
        classes = torch.as_tensor(y, device=split.device)
        if classes.dtype.is_floating_point or classes.shape != (len(split),):
            raise ValueError(
                f"y holds an integer for each of {len(split)} data, got {classes.dtype} {tuple(classes.shape)}"
            )
        split = replace(split, y=classes.to(torch.int64))
    if not split.x_shape or len(split) == 0:
        raise ValueError(f"data of shape (datum, *x_shape) wanted, got {(len(split), *split.x_shape)}")
    if split.mask is not None and split.mask.shape != split.values.shape:
        raise ValueError(f"mask has shape {tuple(split.mask.shape)}, the data {tuple(split.values.shape)}")
    if not isinstance(x, Split):
        seen = observed(split.values)
        if seen is not None:
            split = replace(split, mask=seen if split.mask is None else split.mask & seen)
    return split


def repeat_labelled(split: Split, share: float) -> Split:
    """The same data, with those whose class is given repeated until they are a share of all.

    Few labelled data among many would be seen once in an epoch each, and most batches would hold none. Repeated, they
    are in every batch in proportion, in a random order like the others, and random observations are drawn anew for
    every copy. Each is repeated equally often, or once more than another.

    Args:
        split: with ``y``, -1 where a class is unknown.
        share: wanted share of labelled data, below 1; where they are that many already, nothing changes.

    Raises:
        ValueError: ``share`` out of range, or a split in which no class is given.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of labelled data lies between 0 and 1, got {share:g}")
    if split.y is None or not bool((split.y >= 0).any()):
        raise ValueError("no datum of the split has a class that is given; load it with given_labels, or pass y")
    labelled, unlabelled = ((split.y >= 0).nonzero().flatten(), (split.y < 0).nonzero().flatten())
    wanted = round(share / (1 - share) * len(unlabelled))
    copies = labelled[torch.arange(max(wanted - len(labelled), 0), device=labelled.device) % len(labelled)]
    return split.take(torch.cat([torch.arange(len(split), device=labelled.device), copies]).to(split.ids.device))


def visible(x: Tensor, given: Given) -> Tensor:
    """What `Split.batch` gave, NaN where it is not observed."""
    return torch.where(given["mask"], x, torch.nan) if "mask" in given else x


def observed(values: Tensor) -> Tensor | None:
    """Which elements are not NaN, in the shape of ``values``; ``None`` where all are."""
    if not values.dtype.is_floating_point:
        return None
    missing = values.isnan()
    return ~missing if bool(missing.any()) else None
