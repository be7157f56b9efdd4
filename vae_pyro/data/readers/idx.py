"""Arrays of bytes in the IDX format, in which MNIST and the sets modelled on it are distributed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UINT8 = 8  # the format's code of the type


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes.

    The file is two zero bytes, a byte for the type, one for the number of dimensions, each dimension as a big-endian
    32-bit integer, and the elements in C order (LeCun, Cortes & Burges, The MNIST database of handwritten digits).

    Raises:
        ValueError: another type or format, or not as many elements as the dimensions say.
    """
    content = path.read_bytes()
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != bytes([0, 0, _UINT8]) or not dimensions or len(content) < start:
        raise ValueError(f"{str(path)!r} is not an IDX file of bytes")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    elements = np.frombuffer(content, np.uint8, offset=start)
    if elements.size != np.prod(shape, dtype=object):
        raise ValueError(f"{str(path)!r} has {elements.size:,} elements, and its dimensions are {shape}")
    return elements.reshape(shape).copy()
