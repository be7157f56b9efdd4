"""Rows that are in memory already."""

import numpy as np

from vae_pyro.data.facts import About
from vae_pyro.data.readers.store import Array, Store, check_rows, native, native_type


class ArrayStore(Store):
    """Rows of an array.

    Args:
        name: of the source, for messages.
        values: ``(datum, *x_shape)``.
        labels: ``(datum,)``; names are coded in their order.
        mask: boolean, shape of ``values``, true where observed.
        top: value of full intensity, where it is not that of bytes.
        about: see `Store`.
        test: see `Store`.

    Raises:
        ValueError: no numbers, or labels or a mask of another shape.
    """

    def __init__(
        self,
        name: str,
        values: Array,
        labels: Array | None = None,
        *,
        mask: Array | None = None,
        top: float | None = None,
        about: About | None = None,
        test: "ArrayStore | None" = None,
    ) -> None:
        super().__init__()
        check_rows(name, values.shape, values.dtype)
        if mask is not None and (mask.shape != values.shape or mask.dtype != np.bool_):
            raise ValueError(
                f"{name}: mask is {mask.dtype} {mask.shape}; expected: a boolean for each element of x, {values.shape}"
            )
        codes, classes = coded(name, labels, len(values))
        self.name, self._values, self._labels, self._mask, self.test = name, values, codes, mask, test
        self.x_shape, self.dtype, self.labelled = values.shape[1:], native_type(values.dtype), codes is not None
        self.about = About() if about is None else about
        if classes is not None:
            self.about = About(**{**vars(self.about), "classes": classes})
        if top is not None:
            self.top = top

    def __len__(self) -> int:
        return len(self._values)

    def read(self, start: int, stop: int) -> Array:
        return native(self._values[start:stop])

    def rows(self, index: Array) -> Array:
        return native(self._values[np.asarray(index, np.int64)])

    def labels(self, index: Array) -> Array | None:
        return None if self._labels is None else self._labels[index]

    def mask(self, index: Array) -> Array | None:
        return None if self._mask is None else self._mask[index]

    @property
    def obstacle(self) -> str | None:
        """They are in memory."""
        return f"{self.name} is read whole, and cannot be streamed; leave stream out"

    def whole(self) -> Store:
        held_out = self.test
        if not isinstance(held_out, ArrayStore):
            return self
        parts = (self._labels, held_out._labels)
        labels = None if parts[0] is None or parts[1] is None else np.concatenate([parts[0], parts[1]])
        values = np.concatenate([self._values, held_out._values])
        return ArrayStore(self.name, values, labels, top=self.top, about=self.about)


def coded(name: str, labels: Array | None, size: int) -> tuple[Array | None, tuple[str, ...] | None]:
    """Labels as integers, and the names of their codes where they are names.

    Raises:
        ValueError: not one label for each of ``size`` rows.
    """
    if labels is None:
        return None, None
    if labels.shape != (size,):
        raise ValueError(f"{name}: y has shape {labels.shape}, x has {size} rows")
    if labels.dtype.kind in "bui":
        return labels, None
    names, codes = np.unique(labels, return_inverse=True)
    return codes, tuple(str(one) for one in names)
