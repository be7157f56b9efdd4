"""Items of a map-style torch ``Dataset``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Array, Store, check_rows, native_type


@READERS.register("items")
class ItemReader(Reader):
    """A map-style torch ``Dataset``, or any object with ``__len__`` and ``__getitem__``."""

    expects = "a map-style torch Dataset"
    paths = False
    streams = True
    general = True  # any object that nothing else takes

    def recognises(self, source: Any) -> bool:
        """Whether it is no path."""
        return not isinstance(source, Path)

    def open(self, source: Any) -> Store:
        return Items(source)


class Items(Store):
    """The items of a map-style torch ``Dataset``, or of any object with ``__len__`` and ``__getitem__``.

    An item is a tensor, an array or a picture, or a tuple that begins with one, whose second entry is then its label
    where it is an integer. All items have the shape and type of the first. ``targets`` (torchvision's name) gives the
    labels without reading items. One thread reads, through ``__getitems__`` where there is one; items that change
    from one reading to the next (random augmentation) are read anew in each epoch, and checked as they were at first.

    Args:
        dataset: what to read.

    Raises:
        ValueError: no items, or a first one that is no data.
    """

    prefers_streaming = True

    def __init__(self, dataset: Any) -> None:
        from PIL.Image import Image

        super().__init__()
        self.dataset, self._picture = dataset, Image
        self.name = f"{type(dataset).__name__} dataset"
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise ValueError(f"{self.name} has no __getitem__ and __len__; expected is a map-style dataset")
        if len(dataset) == 0:
            raise ValueError(f"{self.name} holds no data")
        first, label = self._item(0)
        check_rows(f"{self.name}, item 0,", (len(dataset), *first.shape), first.dtype)
        self._stored, self.x_shape, self.dtype = first.dtype, first.shape, native_type(first.dtype)
        self.labelled = label is not None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, start: int, stop: int) -> Array:
        return self.rows(np.arange(start, stop))

    def rows(self, index: Array) -> Array:
        found = np.empty((len(index), *self.x_shape), self.dtype)
        for place, (number, item) in enumerate(self._items(index)):
            value, _ = self._taken(number, item)
            if value.shape != self.x_shape or value.dtype != self._stored:
                raise ValueError(
                    f"{self.name}: item {number} is {value.dtype} {value.shape}, item 0 is {self._stored} "
                    f"{self.x_shape}; bring them to one shape and type"
                )
            found[place] = value
        return found

    def labels(self, index: Array) -> Array | None:
        if not self.labelled:
            return None
        targets = getattr(self.dataset, "targets", None)
        if targets is not None and len(targets) == len(self):
            return np.asarray(targets)[np.asarray(index)]
        return np.asarray([self._taken(number, item)[1] for number, item in self._items(index)])

    def _items(self, index: Array) -> Iterator[tuple[int, Any]]:
        numbers = [int(number) for number in index]
        together = getattr(self.dataset, "__getitems__", None)
        if together is None:
            for number in numbers:
                yield number, self._get(number)
            return
        try:
            found = together(numbers)
        except Exception as error:
            raise self._broken(f"items {numbers[0]} to {numbers[-1]}", error) from error
        yield from zip(numbers, found, strict=True)

    def _get(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except Exception as error:
            raise self._broken(f"item {number}", error) from error

    def _broken(self, what: str, error: Exception) -> ValueError:
        return ValueError(f"{self.name}: {what} cannot be read, {type(error).__name__}: {error}")

    def _item(self, number: int) -> tuple[Array, int | None]:
        return self._taken(number, self._get(number))

    def _taken(self, number: int, item: Any) -> tuple[Array, int | None]:
        value, label = item, None
        if isinstance(item, tuple | list) and item:
            value, second = item[0], item[1] if len(item) > 1 else None
            if second is not None and np.ndim(second) == 0 and np.asarray(second).dtype.kind in "bui":
                label = int(second)
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise ValueError(
                f"{self.name}: item {number} is a masked array, and data that are streamed have no mask; pass all "
                "as one masked array, or mask="
            )
        if isinstance(value, self._picture):
            frames = getattr(value, "n_frames", 1)
            if frames > 1 and value.format != "MPO":
                raise ValueError(f"{self.name}: item {number} has {frames} frames; pass the one that is meant")
            if value.mode == "P":  # whose numbers are places in a palette, not intensities
                value = value.convert("RGB")
        array = np.asarray(value)
        if isinstance(value, self._picture):
            array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if array.dtype.kind not in "buif":
            raise ValueError(
                f"{self.name}: item {number} is a {type(value).__name__}; expected is a tensor or an array"
            )
        return array, label
