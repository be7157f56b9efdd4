"""Paths between points of a latent space."""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


def linear(a: Array, b: Array, fractions: Array) -> Array:
    """The straight path between points, ``(pair, step, latent)``, from two arrays ``(pair, latent)``."""
    t = np.asarray(fractions, dtype=np.float64)[None, :, None]
    return (1 - t) * a[:, None] + t * b[:, None]


def spherical(a: Array, b: Array, fractions: Array) -> Array:
    """The great-circle path, which keeps away from the origin, where a normal prior in many dimensions has no mass.

    Args:
        a: start points, ``(pair, latent)``.
        b: end points, same shape.
        fractions: of the angle, ``(step,)``.

    Returns:
        ``(pair, step, latent)``, float64; the straight path where the directions are the same or a point is the origin.

    Raises:
        ValueError: points in opposite directions, between which no great circle is shortest (the message names them).

    References:
        Shoemake 1985, Animating rotation with quaternion curves, sec. 3.3. doi:10.1145/325165.325242
        White 2016, Sampling generative networks, sec. 2.1. arXiv:1609.04468
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    t = np.asarray(fractions, dtype=np.float64)[None, :, None]
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.where(lengths > 0, lengths, 1.0)
    angle = np.arccos(np.clip(cosine, -1, 1))
    opposite = np.flatnonzero((lengths > 0) & (np.pi - angle < 1e-6))
    if len(opposite):
        raise ValueError(f"pair {int(opposite[0])} has codes in opposite directions; choose kind='linear'")
    straight = (lengths == 0) | (angle < 1e-6)
    omega = np.where(straight, 1.0, angle)[:, None, None]
    arc = (np.sin((1 - t) * omega) * a[:, None] + np.sin(t * omega) * b[:, None]) / np.sin(omega)
    return np.where(straight[:, None, None], linear(a, b, fractions), arc)
