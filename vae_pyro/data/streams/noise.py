"""Random observations of any rows, with the noise that belongs to their place."""

from math import prod

import numpy as np
import torch

from vae_pyro.data.readers.store import Array
from vae_pyro.data.split import Split


def drawn(values: Array, index: Array, *, split: Split, seed: int) -> Array:
    """Observations of stored rows, the same in whatever order they are read.

    Args:
        values: as stored, ``(datum, *x_shape)``.
        index: number of each row.
        split: says how values are observed.
        seed: of the noise.

    Returns:
        Bytes of 0 and 1 where observations are binarised, else float32.
    """
    noise, width = np.empty(values.shape, np.float32), prod(split.x_shape)
    for run in np.split(np.arange(len(index)), np.flatnonzero(np.diff(index) != 1) + 1):
        if len(run):
            first, count = int(index[run[0]]) * width, len(run) * width
            noise[run[0] : run[-1] + 1] = uniform(seed, first, count).reshape(len(run), *split.x_shape)
    x = split.observed(torch.from_numpy(values).to(torch.float32), torch.from_numpy(noise))
    return (x.to(torch.uint8) if split.draw == "binarize" else x).numpy()


def uniform(seed: int, start: int, count: int) -> Array:
    """Numbers ``start`` to ``start + count`` of ``numpy.random.default_rng(seed).random(dtype=float32)``."""
    generator = np.random.PCG64(seed)
    generator.advance(start // 2)
    words = generator.random_raw((start + count + 1) // 2 - start // 2).astype("<u8", copy=False).view("<u4")
    return (words[start % 2 :][:count] >> 8) * np.float32(2.0**-24)
