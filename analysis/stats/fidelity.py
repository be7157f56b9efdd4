"""How faithful and how diverse: neighbourhoods of real and generated data that overlap, Gaussians that differ.

Functions of two arrays, one row a datum. Errors come from half-samples drawn without replacement, since a bootstrap's
repeated rows are neighbours at distance zero and would shrink every ball.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# A block of distances takes at most so many MiB.
_DISTANCE_MIB = 64
# Distances that are equal but for rounding count as equal.
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Neighbourhoods:
    """Shares of generated data among the real ones and of real data among the generated ones.

    Attributes:
        precision: share of generated data in the ball of some real datum: are they realistic?
        recall: share of real data in the ball of some generated datum: could the model have drawn them?
        density: balls of real data that hold a generated datum, over k; 1 on average for one distribution.
        coverage: share of real data whose ball holds a generated datum.
        errors: standard errors of the four, in this order.
        expected_coverage: mean of ``coverage`` where both come from one continuous distribution.
        realistic: which generated data lie in the ball of a real one, shape ``(generated,)``.
        covered: which real data have a generated one in their ball, shape ``(real,)``.
        num_neighbors: k; a ball reaches to the k-th nearest datum of the same sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    errors: Array
    expected_coverage: float
    realistic: Array
    covered: Array
    num_neighbors: int

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, each with ``<key>_se``."""
        values: dict[str, Any] = {}
        for key, error in zip(("precision", "recall", "density", "coverage"), self.errors, strict=True):
            values[key], values[f"{key}_se"] = getattr(self, key), float(error)
        return values | {"expected_coverage": self.expected_coverage, "num_neighbours": self.num_neighbors}

    def __str__(self) -> str:
        precision, recall, density, coverage = self.errors
        return (
            f"precision {self.precision:.3f} ± {precision:.3f}, recall {self.recall:.3f} ± {recall:.3f}; "
            f"density {self.density:.3f} ± {density:.3f} (1 if equal), "
            f"coverage {self.coverage:.3f} ± {coverage:.3f} ({self.expected_coverage:.3f} if equal), "
            f"{self.num_neighbors} neighbours"
        )


def expected_coverage(num_real: int, num_generated: int, num_neighbors: int) -> float:
    """Mean coverage of two samples of one continuous distribution: 1 - prod_{i=1..k} (N - i) / (N + M - i).

    A ball stays empty where the k data nearest to its centre, of all others, are all real.

    References:
        Naeem et al. 2020, Reliable fidelity and diversity metrics for generative models, sec. 3.3. arXiv:2002.09797
    """
    i = np.arange(1, num_neighbors + 1)
    return float(1 - np.prod((num_real - i) / (num_real + num_generated - i)))


def neighbourhoods(
    real: Array, generated: Array, *, num_neighbors: int = 5, num_resamples: int = 50, seed: int
) -> Neighbourhoods:
    """Improved precision and recall, density and coverage, by balls that reach to the k-th nearest neighbour.

    Precision and recall have no closed form under equality (they depend on sizes and dimension); density and coverage
    do. Distances are Euclidean, made a block at a time: memory grows with rows, not with their product. The errors are
    rather too wide than too narrow, by up to a half: a half-sample has other neighbours than the whole.

    Args:
        real: shape ``(N, *event)``.
        generated: shape ``(M, *event)``.
        num_neighbors: k.
        num_resamples: pairs of half-samples that the errors come from; their own relative error is about
            ``1 / sqrt(2 num_resamples)``.
        seed: of the half-samples.

    Raises:
        ValueError: too few rows for so many neighbours.

    References:
        Kynkäänniemi et al. 2019, Improved precision and recall metric, eq. 1-2. arXiv:1904.06991
        Naeem et al. 2020, Reliable fidelity and diversity metrics for generative models, eq. 3-4. arXiv:2002.09797
        Shao & Wu 1989, A general theory for jackknife variance estimation, Annals of Statistics 17, 1176-1197 (leaving
        out half). doi:10.1214/aos/1176347263
        Abadie & Imbens 2008, On the failure of the bootstrap for matching estimators, Econometrica 76, 1537-1557.
        doi:10.3982/ECTA6474
    """
    real, generated = as_rows(real, generated)
    if num_neighbors < 1 or min(len(real), len(generated)) < 2 * num_neighbors + 2:
        raise ValueError(
            f"{num_neighbors} neighbours require at least {2 * max(num_neighbors, 1) + 2} rows of each sample (half "
            f"of them give the errors), got {len(real)} and {len(generated)}"
        )
    shares, realistic, covered = _memberships(real, generated, num_neighbors)
    halves = _half_samples(lambda x, y: _memberships(x, y, num_neighbors)[0], real, generated, num_resamples, seed)
    precision, recall, density, coverage = (float(share) for share in shares)
    return Neighbourhoods(
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        errors=halves.std(0, ddof=1),
        expected_coverage=expected_coverage(len(real), len(generated), num_neighbors),
        realistic=realistic,
        covered=covered,
        num_neighbors=num_neighbors,
    )


def _memberships(real: Array, generated: Array, k: int) -> tuple[Array, Array, Array]:
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    def radius(x: Array) -> Array:
        reach: Array = NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]
        return reach * _ROUNDING

    # Distances do not change, and lose fewer digits near the origin.
    origin = np.concatenate([real, generated]).mean(0)
    real, generated = real - origin, generated - origin
    real_radius, generated_radius = radius(real), radius(generated)
    covered, recalled = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    balls: list[Array] = []

    def reduce(distance: Array, start: int) -> Array:
        inside = distance <= real_radius
        np.logical_or(covered, inside.any(0), out=covered)
        reached = distance <= generated_radius[start : start + len(distance), None]
        np.logical_or(recalled, reached.any(0), out=recalled)
        return inside.sum(1)

    balls.extend(pairwise_distances_chunked(generated, real, reduce_func=reduce, working_memory=_DISTANCE_MIB))
    count = np.concatenate(balls)
    shares = np.array([(count > 0).mean(), recalled.mean(), count.mean() / k, covered.mean()])
    return shares, count > 0, covered


@dataclass(frozen=True)
class Frechet:
    """Squared Fréchet distance between Gaussians with the moments of two samples.

    Attributes:
        value: of the samples as they are; too large on average, by about `bias`.
        bias: estimated from half-samples, on which it is twice as large.
        standard_error: of ``value`` and of `corrected`.
        sizes: rows of the two samples.
    """

    value: float
    bias: float
    standard_error: float
    sizes: tuple[int, int]

    @property
    def corrected(self) -> float:
        """Extrapolated to samples without end; 0 on average for one distribution, so that it may be negative."""
        return self.value - self.bias

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "frechet": self.value,
            "frechet_corrected": self.corrected,
            "frechet_bias": self.bias,
            "frechet_se": self.standard_error,
        }

    def __str__(self) -> str:
        return (
            f"Fréchet distance {self.corrected:.3g} ± {self.standard_error:.2g} "
            f"({self.value:.3g} less a bias of {self.bias:.2g} at these sizes)"
        )


def gaussian_frechet(first_loc: Array, first_covariance: Array, second_loc: Array, second_covariance: Array) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))``, the squared 2-Wasserstein distance of Gaussians.

    Symmetric eigenvalues alone: no root of a product that is not symmetric, hence no complex part to be dropped.

    Args:
        first_loc: shape ``(d,)``; likewise ``second_loc``.
        first_covariance: shape ``(d, d)``, may be singular; likewise ``second_covariance``.

    References:
        Dowson & Landau 1982, The Fréchet distance between multivariate normal distributions, Journal of Multivariate
        Analysis 12, eq. 4. doi:10.1016/0047-259X(82)90077-X
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(first_covariance))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.atleast_2d(second_covariance) @ root)
    traces = np.trace(np.atleast_2d(first_covariance)) + np.trace(np.atleast_2d(second_covariance))
    between = float(((np.atleast_1d(first_loc) - np.atleast_1d(second_loc)) ** 2).sum())
    return between + float(traces - 2 * np.sqrt(np.maximum(inner, 0)).sum())


def frechet_distance(x: Array, y: Array, *, num_resamples: int = 50, seed: int) -> Frechet:
    """Fréchet distance of two samples of features, its bias and its error. On Inception features it is the FID.

    The bias falls as 1 / size, so that half-samples have twice as much of it: ``value - (mean of halves - value)`` is
    the extrapolation of FID-infinity with two sizes.

    Args:
        x: features, shape ``(m, *event)``; more rows than features, or the covariance is singular and the bias large.
        y: shape ``(n, *event)``.
        num_resamples: pairs of half-samples.
        seed: of the half-samples.

    Raises:
        ValueError: fewer than 4 rows.

    References:
        Heusel et al. 2017, GANs trained by a two time-scale update rule, eq. 6. arXiv:1706.08500
        Chong & Forsyth 2020, Effectively unbiased FID and inception score, sec. 3-4. arXiv:1911.07023
    """
    x, y = as_rows(x, y)
    if min(len(x), len(y)) < 4:
        raise ValueError(f"at least 4 rows of each sample required, got {len(x)} and {len(y)}")

    def distance(x: Array, y: Array) -> float:
        moments = [(rows.mean(0), np.cov(rows, rowvar=False)) for rows in (x, y)]
        return gaussian_frechet(*moments[0], *moments[1])

    value = distance(x, y)
    halves = _half_samples(distance, x, y, num_resamples, seed)
    return Frechet(value, float(halves.mean()) - value, float(halves.std(ddof=1)), (len(x), len(y)))


def _half_samples(statistic: Callable[[Array, Array], Any], x: Array, y: Array, num_resamples: int, seed: int) -> Array:
    """A statistic of pairs of random halves; its spread is that of the statistic itself (delete-half jackknife)."""
    if num_resamples < 2:
        raise ValueError(f"at least 2 half-samples are required for an error, got num_resamples={num_resamples}")
    random = np.random.default_rng(seed)
    return np.array(
        [
            statistic(x[random.permutation(len(x))[: len(x) // 2]], y[random.permutation(len(y))[: len(y) // 2]])
            for _ in range(num_resamples)
        ]
    )


def as_rows(x: Array, y: Array) -> tuple[Array, Array]:
    """Two samples as float64 matrices, one row a datum.

    Raises:
        ValueError: events that differ, or a value that is not finite.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim < 1 or y.ndim < 1 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"two samples of shape (row, *event) with equal events required, got {x.shape} and {y.shape}")
    for name, rows in (("first", x), ("second", y)):
        if len(rows) and not np.isfinite(rows).all():
            bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
            raise ValueError(
                f"{len(bad)} rows of the {name} sample are not finite, the first is {bad[0]}; leave them out or impute"
            )
    return x.reshape(len(x), prod(x.shape[1:])), y.reshape(len(y), prod(x.shape[1:]))
