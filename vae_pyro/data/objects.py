"""What a user holds in memory as a tensor that torch computes with, or a message that names what to pass."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.data.readers.store import Array, check_layout, native
from vae_pyro.data.tables.cells import listed
from vae_pyro.data.tables.reading import frame_of, is_frame


def tensor_of(x: Any) -> tuple[Tensor, Tensor | None]:
    """Numbers as a tensor, and which of them are observed where the object itself says so.

    Memory is shared where nothing has to change: not with arrays that are read-only, reversed or of another byte order.

    Args:
        x: a tensor, of which the gradient is left; an array, a masked one with its mask; a table in memory whose
            columns are all numbers; or nested lists.

    Returns:
        Values, and a boolean tensor of their shape, true where observed; ``None`` where the object says nothing.

    Raises:
        ValueError: not numbers; the message names what to pass.
    """
    if isinstance(x, torch.utils.data.DataLoader):
        raise ValueError("got a DataLoader, which deals out batches of its own; pass its data set, loader.dataset")
    if isinstance(x, Tensor):
        return _plain(x), None
    if is_frame(x):
        return torch.from_numpy(_numbers(x)), None
    if isinstance(x, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in x):
        x = np.ma.stack(x)
    if isinstance(x, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(x)
        return _of_array(x.data), torch.from_numpy(~hidden) if hidden.any() else None
    if isinstance(x, np.ndarray):
        return _of_array(x), None
    try:
        return _plain(torch.as_tensor(x)), None
    except (TypeError, ValueError, RuntimeError):
        pass
    try:
        return _of_array(np.asarray(x)), None
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data are a tensor, an array, a table of numbers, or a map-style Dataset, got {type(x).__name__}: {error}"
        ) from None


def classes_of(y: Any, size: int, device: torch.device) -> Tensor:
    """Classes of so many data as int64, ``(datum,)``, see `integers_of`.

    Raises:
        ValueError: not an integer for each; the message says how names become integers.
    """
    classes = integers_of(y)
    if classes.shape != (size,):
        raise ValueError(f"y holds an integer for each of {size} data, got {classes.dtype} {tuple(classes.shape)}")
    return classes.to(device)


def integers_of(y: Any) -> Tensor:
    """Classes as int64, in the shape in which they are given; -1, unknown, where a masked array hides one.

    Raises:
        ValueError: names or other numbers; the message says how names become integers.
    """
    if isinstance(y, np.ma.MaskedArray) and y.dtype.kind in "bui":
        y = np.where(np.ma.getmaskarray(y), -1, y.data.astype(np.int64))
    if isinstance(y, Tensor):
        classes = y.detach()
    else:
        array = np.asarray(y)
        if array.dtype.kind not in "buif":
            raise ValueError(
                f"y holds {array.dtype} such as {array.ravel()[:1]}, expected is an integer for each datum: pass the "
                "codes of names, _, y = numpy.unique(names, return_inverse=True)"
            )
        classes = _of_array(array)
    if classes.dtype.is_floating_point or classes.dtype.is_complex:
        raise ValueError(f"y holds integers, got {classes.dtype} {tuple(classes.shape)}")
    return classes.to(torch.int64)


def mask_of(mask: Any, device: torch.device) -> Tensor:
    """Which elements are observed, as a boolean tensor.

    Raises:
        ValueError: neither truth values nor the numbers 0 and 1, as where missing elements are marked otherwise.
    """
    if isinstance(mask, Tensor):
        values = mask.detach()
    else:
        array = np.asarray(mask)
        if array.dtype.kind not in "buif":
            raise ValueError(f"mask is a boolean for each element of x, got {array.dtype}")
        values = _of_array(array)
    if values.dtype != torch.bool and not bool(((values == 0) | (values == 1)).all()):
        raise ValueError(f"mask is a boolean for each element of x, got {values.dtype} with values other than 0 and 1")
    return values.to(device, torch.bool)


def _plain(x: Tensor) -> Tensor:
    if x.dtype.is_complex:
        raise ValueError(f"data are real numbers, got a tensor of {x.dtype}; pass its real and imaginary parts")
    check_layout("x", tuple(x.shape))
    return (x.float() if x.dtype == torch.bfloat16 else x).detach()


def _of_array(x: Array) -> Tensor:
    if x.dtype.kind not in "buif":
        raise ValueError(
            f"data are numbers, got an array of type {x.dtype}; convert it with x.astype(float), or read a table with "
            "names of categories by vae_pyro.data.tables.reading.read_table"
        )
    check_layout("x", x.shape)
    if x.dtype != np.bool_:
        x = native(x) if not x.dtype.isnative or x.dtype.itemsize > 8 or _odd_integers(x) else x
    if any(stride < 0 for stride in x.strides) or not x.flags.writeable:
        x = x.copy()
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else torch.as_tensor(x)


def _odd_integers(x: Array) -> bool:
    """Unsigned integers of more than 8 bits, with which torch does not compute, and others, which are int64 as read."""
    return x.dtype.kind in "ui" and x.dtype != np.uint8


def _numbers(x: Any) -> Array:
    """The values of a table in memory.

    Raises:
        ValueError: a column that holds no numbers.
    """
    frame = frame_of(x)
    numeric = frame.select_dtypes(["number", "bool", "boolean"])
    if numeric.shape[1] < frame.shape[1]:
        others = [str(name) for name in frame.columns if name not in numeric.columns]
        raise ValueError(
            f"columns of the table are no numbers: {listed(others)}; leave them out, or save it as .csv or .parquet "
            "and pass load_data(path, kinds='auto'), whose likelihood 'table' describes categories"
        )
    found: Array = frame.to_numpy()
    if found.dtype.kind not in "buif":
        found = frame.to_numpy(np.float64, na_value=np.nan)
    return native(found) if found.dtype.kind != "f" else np.array(found)
