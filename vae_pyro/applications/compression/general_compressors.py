"""Sizes of the same data under general-purpose compressors."""

import bz2
import gzip
import lzma
from io import BytesIO
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

_GZIP_LEVEL, _BZ2_LEVEL = 9, 9
_MAX_SIDE = 65_500  # of a PNG that Pillow reads back


def compressed_sizes(x: Array) -> dict[str, int]:
    """Size in bits of integers ``(datum, *x_shape)`` under gzip, bz2, lzma and PNG, each at its highest level.

    Each compresses the data as bytes of the smallest type that holds them; binary data also as packed bits, of which
    the shorter code counts. PNG receives all images below each other as one picture (of 1 bit for binary data), so that
    its header counts once; it is left out where the data are not images of one channel with at most 256 levels.
    """
    integers = np.asarray(x)
    low, high = int(integers.min()), int(integers.max())
    smallest = np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high))
    forms = [np.ascontiguousarray(integers, smallest.newbyteorder("<")).tobytes()]
    binary = low >= 0 and high <= 1
    if binary:
        forms.append(np.packbits(integers.astype(bool)).tobytes())
    sizes = {
        "gzip": min(len(gzip.compress(form, _GZIP_LEVEL, mtime=0)) for form in forms),
        "bz2": min(len(bz2.compress(form, _BZ2_LEVEL)) for form in forms),
        "lzma": min(len(lzma.compress(form, preset=9 | lzma.PRESET_EXTREME)) for form in forms),
    }
    picture = _picture(integers) if low >= 0 and high <= 255 else None
    if picture is not None:
        sizes["PNG"] = _png(picture, binary)
    return {name: 8 * size for name, size in sizes.items()}


def _picture(x: Array) -> Array | None:
    """Images below each other, ``(row, column)``; ``None`` for data that are not images of one channel."""
    if x.ndim == 4 and x.shape[1] == 1:
        x = x[:, 0]
    return x.reshape(-1, x.shape[-1]).astype(np.uint8) if x.ndim == 3 else None


def _png(picture: Array, binary: bool) -> int:
    from PIL import Image

    size = 0
    for start in range(0, len(picture), _MAX_SIDE):
        part = picture[start : start + _MAX_SIDE]
        image = Image.fromarray(part * 255 if binary else part)
        content = BytesIO()
        (image.convert("1") if binary else image).save(content, "PNG", optimize=True)
        size += len(content.getvalue())
    return size
