"""How far apart two samples are: the kernel maximum mean discrepancy, with a permutation test of equality."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np

from analysis.stats.two_sample import relabellings

type Array = np.ndarray[Any, Any]
type Bandwidth = float | Sequence[float] | Literal["median", "ladder"]

# Rows of the kernel matrix held at once, and rows whose distances the median is taken over.
_ROWS = 512
_MEDIAN_ROWS = 1000
_LADDER = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class MMD:
    """Squared maximum mean discrepancy of two samples, and a test that they come from one distribution.

    Attributes:
        value: unbiased estimate of MMD^2; 0 on average where the distributions agree, so that it may be negative.
        standard_error: of ``value`` as an estimate of MMD^2.
        p_value: share of relabelled samples, the given one among them, with a value at least as large.
        p_value_mcse: Monte Carlo standard error of ``p_value``, from the number of permutations.
        bandwidth: lengths of the Gaussian kernels that the kernel is the mean of.
        null: values of the permuted samples, shape ``(permutation,)``.
        sizes: number of rows of the two samples.
    """

    value: float
    standard_error: float
    p_value: float
    p_value_mcse: float
    bandwidth: tuple[float, ...]
    null: Array
    sizes: tuple[int, int]

    @property
    def threshold(self) -> float:
        """What ``value`` stays below in 95 % of samples of one distribution."""
        return float(np.quantile(self.null, 0.95))

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "mmd2": self.value,
            "mmd2_se": self.standard_error,
            "p_value": self.p_value,
            "p_value_mcse": self.p_value_mcse,
            "threshold": self.threshold,
            "bandwidth": list(self.bandwidth),
            "sizes": list(self.sizes),
            "num_permutations": len(self.null),
        }

    def __str__(self) -> str:
        verdict = (
            "no difference is seen at these sizes" if self.p_value > 0.05 else "the samples differ in distribution"
        )
        return (
            f"MMD^2 {self.value:.3g} ± {self.standard_error:.2g} between {self.sizes[0]:,} and {self.sizes[1]:,} rows "
            f"(below {self.threshold:.2g} in 95 % of equal ones)\n"
            f"  p = {self.p_value:.3f} ± {self.p_value_mcse:.3f} ({len(self.null):,} permutations): {verdict}"
        )


def mmd(x: Array, y: Array, *, seed: int, bandwidth: Bandwidth = "median", num_permutations: int = 499) -> MMD:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel, and its permutation test.

    ``MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)`` with ``k(a, b) = exp(-|a - b|^2 / (2 h^2))``, which is 0 only
    for equal distributions. The test is exact at any size where rows are independent: the bandwidth is chosen from the
    pooled sample, which relabelling leaves alone. The kernel matrix is made a block of rows at a time: memory is
    ``512 (m + n)`` numbers for it and ``(m + n) num_permutations`` for the labels.

    Args:
        x: shape ``(m, *event)``, one independent draw a row.
        y: shape ``(n, *event)``.
        seed: of the permutations, and of the rows that a median is taken over.
        bandwidth: the length h in the units of the data; several lengths, whose kernels are averaged; ``median`` of the
            pooled distances; or ``ladder``, 1/4, 1/2, 1, 2 and 4 medians, which sees differences at several scales.
        num_permutations: relabellings; the smallest p-value is ``1 / (num_permutations + 1)``.

    Returns:
        The estimate, its error, and the p-value with its Monte Carlo error. The error adds the first-order term of the
        U-statistic, which vanishes for equal distributions, to its variance there, so that it is a little wide.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 rows, a value that is not finite, a bandwidth that is not
            positive, or no permutations.

    References:
        Gretton et al. 2012, A kernel two-sample test, JMLR 13, lemma 6 (eq. 3), sec. 5 (variance) and 8 (median).
        Phipson & Smyth 2010, Permutation p-values should never be zero, sec. 3 (the p-value). arXiv:1603.05766
        Gretton et al. 2012, Optimal kernel choice for large-scale two-sample tests, NeurIPS (several kernels).
    """
    pooled, m, n = _pool(x, y)
    random = np.random.default_rng(seed)
    lengths = _lengths(pooled, bandwidth, random)

    # Column 0 holds the labels as given, the others permuted ones; 1 marks a row of the first sample.
    labels = np.ascontiguousarray(relabellings(m, n, num_permutations, seed=random).T)
    within, row_sum, row_first = _kernel_sums(pooled, labels, lengths)

    # All three means follow from the sum within the first sample, since sums over all rows do not depend on labels.
    across = row_sum @ labels - within
    other = row_sum.sum() - 2 * across - within
    statistic = within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * across / (m * n)
    value, null = float(statistic[0]), statistic[1:]
    rounding = 1e-12
    p_value = float((1 + (null >= value - rounding).sum()) / (num_permutations + 1))
    p_value_mcse = max(sqrt(p_value * (1 - p_value) / num_permutations), 0.5 / (num_permutations + 1))

    # First-order (Hoeffding) terms: each row's mean kernel with its own sample, less that with the other.
    row_other = row_sum - row_first
    x_term = row_first[:m] / (m - 1) - row_other[:m] / n
    y_term = row_other[m:] / (n - 1) - row_first[m:] / m
    variance = 4 * x_term.var(ddof=1) / m + 4 * y_term.var(ddof=1) / n + null.var()
    return MMD(value, sqrt(variance), p_value, p_value_mcse, lengths, null, (m, n))


def _pool(x: Array, y: Array) -> tuple[Array, int, int]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim < 1 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"two samples of shape (row, *event) with equal events required, got {x.shape} and {y.shape}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"at least 2 rows of each sample required, got {len(x)} and {len(y)}")
    pooled = np.concatenate([x, y]).reshape(len(x) + len(y), -1)
    if not np.isfinite(pooled).all():
        raise ValueError(
            f"{int((~np.isfinite(pooled)).any(1).sum())} rows hold a value that is not finite; leave them out or "
            "impute them first"
        )
    # Distances do not change, and lose fewer digits near the origin.
    return pooled - pooled.mean(0), len(x), len(y)


def _lengths(pooled: Array, bandwidth: Bandwidth, random: np.random.Generator) -> tuple[float, ...]:
    if isinstance(bandwidth, str):
        if bandwidth not in ("median", "ladder"):
            raise ValueError(f"unknown bandwidth {bandwidth!r}; choose median, ladder, or positive lengths")
        median = median_distance(pooled, random)
        return (median,) if bandwidth == "median" else tuple(factor * median for factor in _LADDER)
    lengths = tuple(float(length) for length in np.atleast_1d(np.asarray(bandwidth, dtype=np.float64)))
    if not lengths or not all(np.isfinite(length) and length > 0 for length in lengths):
        raise ValueError(f"bandwidth must be positive lengths, got {lengths}")
    return lengths


def median_distance(pooled: Array, random: np.random.Generator) -> float:
    """Median of the distances of pooled rows, of at most 1,000 of them: the usual length of the kernel."""
    from scipy.spatial.distance import pdist

    some = pooled
    if len(pooled) > _MEDIAN_ROWS:
        some = pooled[random.choice(len(pooled), _MEDIAN_ROWS, replace=False)]
    distances = pdist(some)
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else 1.0  # all rows alike: any length gives 0


def _kernel_sums(pooled: Array, labels: Array, lengths: Sequence[float]) -> tuple[Array, Array, Array]:
    """Sums of the kernel without its diagonal, from its upper triangle: ``(within first, rows, rows with first)``."""
    total, columns = labels.shape
    square = (pooled**2).sum(1)
    within = np.zeros(columns)
    row_sum, row_first = np.zeros(total), np.zeros(total)
    for start in range(0, total, _ROWS):
        stop = min(start + _ROWS, total)
        distance = pooled[start:stop] @ pooled[start:].T
        distance *= -2
        distance += square[start:stop, None]
        distance += square[start:]
        np.maximum(distance, 0, out=distance)
        kernel = np.zeros_like(distance)
        for length in lengths:
            scaled = distance * (-0.5 / length**2)
            kernel += np.exp(scaled, out=scaled)
        kernel /= len(lengths)
        here = stop - start
        np.fill_diagonal(kernel[:, :here], 0)
        with_first = kernel[:, :here] @ labels[start:stop]
        beyond = kernel[:, here:] @ labels[stop:]
        within += (labels[start:stop] * (with_first + 2 * beyond)).sum(0)
        row_sum[start:stop] += kernel.sum(1)
        row_first[start:stop] += with_first[:, 0] + beyond[:, 0]
        row_sum[stop:] += kernel[:, here:].sum(0)
        row_first[stop:] += labels[start:stop, 0] @ kernel[:, here:]
    return within, row_sum, row_first
