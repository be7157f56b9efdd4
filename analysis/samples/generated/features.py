"""What is compared of generated and real data: their numbers, principal components, or features of the user's."""

from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.stats.fidelity import as_rows

type Array = np.ndarray[Any, Any]
type Features = Callable[[Array], Array]

# Rows that a feature extractor sees at once.
BLOCK = 1024
# Dimension that distances are taken in where no features are given.
_MAX_DIM = 50
# Elements up to which principal components come from the whole covariance.
_MAX_EXACT = 1000
_TINY = 1e-12


def embedding(real: Array, generated: Array, features: Features | None, seed: int) -> tuple[Features, str]:
    """What is compared, as a function of data, and its name. It treats both samples alike, as the tests require."""
    if features is not None:
        return features, f"the features {getattr(features, '__name__', type(features).__name__)!r}"
    both = np.concatenate(as_rows(real, generated))
    elements = both.shape[1]
    name, scale = f"{elements} elements as they are", np.ones(elements)
    if real.ndim == 2:
        name, scale = f"{elements} columns divided by their standard deviation", both.std(0)
        scale = np.where(scale > _TINY * np.maximum(np.abs(both).max(0), 1), scale, 1.0)

    def scaled(x: Array) -> Array:
        flat: Array = x.reshape(len(x), elements) / scale
        return flat

    if elements <= _MAX_DIM or len(both) <= _MAX_DIM:
        return scaled, name
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if elements <= _MAX_EXACT else "randomized"
    state = int(np.random.default_rng(seed).integers(2**31))
    components = PCA(_MAX_DIM, svd_solver=solver, random_state=state).fit(both / scale)
    kept = float(components.explained_variance_ratio_.sum())
    name = f"{_MAX_DIM} principal components of both samples together ({kept:.0%} of the variance of {name})"
    return lambda x: components.transform(scaled(x)), name


def in_blocks(function: Features, x: Array) -> Array:
    """Features of data, ``(datum, feature)``, a block at a time."""
    blocks = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return np.concatenate([checked(function(block), len(block)) for block in blocks])


def checked(features: Array, size: int) -> Array:
    """Features of so many data.

    Raises:
        ValueError: another shape.
    """
    array = np.asarray(features)
    if array.ndim != 2 or len(array) != size:
        raise ValueError(f"features of {size} data must have the shape ({size}, feature), got {array.shape}")
    return array


def plane(x: Array, y: Array) -> Array:
    """Two samples on their first two principal components, one after the other, ``(x + y, 2)``."""
    both = np.concatenate([x, y])
    both = both - both.mean(0)
    _, vectors = np.linalg.eigh(both.T @ both)
    points = both @ vectors[:, ::-1][:, :2]
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
