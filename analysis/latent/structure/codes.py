"""Checks of codes and small statistics that the parts of the latent-space structure share."""

from typing import Any

import numpy as np

from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]


def checked_codes(codes: Any) -> Array:
    """Codes ``(datum, latent)`` as float64.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    codes = np.asarray(codes, dtype=np.float64)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes of shape (datum, latent) required, got {codes.shape}")
    if not np.isfinite(codes).all():
        raise ValueError(f"{int((~np.isfinite(codes)).sum())} codes are not finite; look for data the encoder fails on")
    return codes


def some_rows(size: int, most: int, seed: int, stream: int) -> Array:
    """At most so many rows, drawn at random, in order."""
    return np.sort(np.random.default_rng(derive_seed(seed, stream)).permutation(size)[:most])
