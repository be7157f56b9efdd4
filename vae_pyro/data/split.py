"""What every split can do, wherever its data are: hand out batches, epochs and parts, as a model observes them."""

import hashlib
from collections.abc import Iterator
from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.minibatches import WHOLE, Part, batches
from vae_pyro.data.observing import Given, Observing, Words
from vae_pyro.data.summary import DataSummary

# Any rows: numbers, a boolean for each row, or a slice.
type Index = Tensor | slice


class Split(Observing):
    """Data of one split, and how stored numbers become observations.

    ``Split(values, labels=None, ids=None, mask=None, top=None, draw="none", space="the values as given", y=None)`` is a
    `vae_pyro.data.memory.resident.ResidentSplit`, as ``pathlib.Path(...)`` is a path of the system. Every split is used
    in the same way; `streamed` and `resident` say where its data are.

    Attributes are those of `vae_pyro.data.observing.Observing`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """A split in memory where the class is `Split` itself."""
        if cls is Split:
            from vae_pyro.data.memory.resident import ResidentSplit

            return object.__new__(ResidentSplit)  # type: ignore[return-value]
        return object.__new__(cls)

    # --- what a split is ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of data."""
        raise NotImplementedError

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of one datum."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Type of the stored values."""
        return self.head.dtype

    @property
    def device(self) -> torch.device:
        """Where batches are handed out."""
        raise NotImplementedError

    @property
    def labels(self) -> Tensor | None:
        """Labels ``(datum,)``, which no program is given; ``None`` where there are none."""
        raise NotImplementedError

    @property
    def ids(self) -> Tensor:
        """Row of each datum in its source, ``(datum,)``."""
        raise NotImplementedError

    @property
    def resident(self) -> bool:
        """Whether all values are in memory as one dense tensor, ``values``."""
        return False

    @property
    def streamed(self) -> bool:
        """Whether the data stay outside memory, and are read block by block in an order of their own."""
        return False

    @property
    def head(self) -> Tensor:
        """The first datum as it is stored, ``(1, *x_shape)``: shape, type and device of all of them."""
        return self.stored(slice(0, 1))

    # --- data -----------------------------------------------------------------------------------------------------

    def stored(self, index: Index) -> Tensor:
        """Some data as they are stored, dense, ``(datum, *x_shape)``; bytes stay bytes."""
        raise NotImplementedError

    def given(self, index: Index) -> Given:
        """What the programs are given beside x of some data: ``mask`` and ``y``, where there are such."""
        beside = {"mask": self.mask, "y": self.y}
        return {name: value[index] for name, value in beside.items() if value is not None}

    def batch(self, index: Index, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Given]:
        """Observations of some data, drawn from torch's generator where they are random.

        Args:
            index: rows.
            dtype: floating-point type of the result.

        Returns:
            x of shape ``(datum, *x_shape)``, and what `given` gives.
        """
        x = self.stored(index).to(dtype)
        return self.observed(x, torch.rand_like(x) if self.draw != "none" else x), self.given(index)

    def epoch(
        self, batch_size: int, seed: int, bits: Words, *, start: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, ...]]:
        """Raw batches of one epoch, each datum once, in a random order.

        Args:
            batch_size: data in a step; the last batch is smaller where they do not divide.
            seed: decides the order.
            bits: of random observations, see `raw`.
            start: number of the first batch to give. The words of those before it are passed over, so that an epoch
                goes on as if it had not been interrupted.
            part: the share of each batch to give.

        Yields:
            What `raw` gives.
        """
        for number, rows in enumerate(batches(len(self), batch_size, seed, self.device)):
            index = part.take(rows)
            if number >= start:
                yield self.raw(index, bits)
            elif self.draw != "none":
                bits(len(index) * prod(self.x_shape))

    def raw(self, index: Tensor, bits: Words) -> tuple[Tensor, ...]:
        """Rows as they are stored, for `observe`: values, random words where observing draws, mask and classes.

        Args:
            index: numbers of rows, none of them negative.
            bits: gives so many random 32-bit words as an int32 tensor, see `vae_pyro.core.minibatches.BitStream`.
        """
        return self._with_words(self.stored(index), bits, list(self.given(index).values()))

    # --- other splits ---------------------------------------------------------------------------------------------

    def take(self, index: Index) -> "Split":
        """Some of the data, in memory and dense."""
        raise NotImplementedError

    def between(self, start: int, stop: int) -> "Split":
        """Consecutive data, kept as all of them are."""
        return self.take(slice(start, stop))

    def sample(self, count: int, seed: int) -> "Split":
        """So many data, or all where there are fewer, chosen at random and in a random order, in memory and dense."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.take(order[:count].to(self.device))

    def fixed(self, seed: int) -> "Split":
        """The same data with every random observation drawn once, with ``seed``.

        The noise is NumPy's PCG64, whose stream is the same on every machine and release; torch's is not.
        """
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        """The same data, handed out on another device."""
        raise NotImplementedError

    def replace(self, **changes: Any) -> Self:
        """The same data with other attributes: ``top``, ``draw``, ``space``, ``y``, and what else the class takes.

        Raises:
            ValueError: an attribute that such data cannot have.
        """
        raise NotImplementedError

    # --- facts ----------------------------------------------------------------------------------------------------

    def summary(self) -> DataSummary:
        """Range and lattice of the observations, for the likelihood's check.

        Raises:
            ValueError: an observed value is not finite; the message counts them and names the first.
        """
        raise NotImplementedError

    def feed(self, digest: "hashlib._Hash") -> None:
        """Add what a run's fingerprint is made of: the stored values, the mask, and the classes that are given."""
        raise NotImplementedError

    def _where(self) -> str:
        """Where the data are, in words."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} data of shape {self.x_shape}, {self._where()}, {self.space})"

    def __str__(self) -> str:
        drawn = {"binarize": ", drawn anew at each call", "dequantize": ", noise drawn anew at each call"}
        beside = [name for name in ("labels", "mask", "y") if self._has(name)]
        return "\n".join(
            [
                f"{type(self).__name__}: {len(self):,} data of shape {self.x_shape}, {self._where()}",
                f"  observed: {self.space}{drawn.get(self.draw, '')}",
                f"  beside the data: {', '.join(beside) or 'nothing'}",
            ]
        )

    def _has(self, name: str) -> bool:
        """Whether there are labels, a mask or classes; looked up without reading them."""
        return getattr(self, name) is not None


def fingerprint(*splits: Split) -> str:
    """SHA-256 of the stored values and masks, by which a run notices that its data have changed.

    Of streamed data it covers what `vae_pyro.data.readers.store.Store.digest` covers.
    """
    digest = hashlib.sha256()
    for split in splits:
        split.feed(digest)
    return digest.hexdigest()


def feed_tensor(digest: "hashlib._Hash", tensor: Tensor, blocks: Iterator[slice]) -> None:
    """Add the bytes of a tensor, so many rows at a time."""
    for rows in blocks:
        digest.update(np.ascontiguousarray(tensor[rows].cpu().numpy()).reshape(-1).view(np.uint8))


def row_numbers(index: Index, size: int) -> np.ndarray[Any, Any]:
    """Numbers of the rows that an index chooses of so many.

    Raises:
        IndexError: a row that is not there.
    """
    if isinstance(index, slice):
        return np.arange(*index.indices(size))
    rows = np.asarray(index.cpu())
    rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    rows = np.where(rows < 0, rows + size, rows)
    if len(rows) and not (rows.min() >= 0 and rows.max() < size):
        raise IndexError(f"rows {rows.min()} to {rows.max()} are not all among {size}")
    return rows


def visible(x: Tensor, given: Given) -> Tensor:
    """What `Split.batch` gave, NaN where it is not observed."""
    return torch.where(given["mask"], x, torch.nan) if "mask" in given else x


def seen(values: Tensor) -> Tensor | None:
    """Which elements are not NaN, in the shape of ``values``; ``None`` where all are."""
    if not values.dtype.is_floating_point:
        return None
    missing = values.isnan()
    return ~missing if bool(missing.any()) else None
