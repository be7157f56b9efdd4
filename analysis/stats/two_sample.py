"""Do two samples come from one distribution? Statistics for all relabellings at once, and p-values of several of them.

A test by permutation is exact for any statistic, so long as it is computed for the labels as given and for relabelled
ones alike. Here a row of an array is one arrangement of the labels, the first row the given one, and the columns of a
result are different statistics, so that several are judged together by the same relabellings.
"""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

_TINY = 1e-12


def relabellings(m: int, n: int, num_permutations: int, *, seed: int | np.random.Generator) -> Array:
    """Arrangements of the labels of ``m + n`` pooled rows: as given, then permuted at random.

    They are those that `analysis.stats.mmd.mmd` draws with the same seed and a bandwidth in numbers, one by one.

    Returns:
        1 for a row of the first sample and 0 for one of the second, ``(1 + num_permutations, m + n)``, float64.

    Raises:
        ValueError: fewer than one permutation.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, got {num_permutations}")
    first = np.zeros((num_permutations + 1, m + n))
    first[:, :m] = 1
    first[1:] = np.random.default_rng(seed).permuted(first[1:], axis=1)
    return first


def anderson_darling(values: Array, first: Array) -> Array:
    """Two-sample Anderson-Darling statistic for each arrangement: distance of two empirical distribution functions.

    It weighs squared differences by the inverse of their variance, so that a difference in the tails is seen as well as
    one of location. Its mean is about 1 for one distribution, whatever that is.

    Args:
        values: of the pooled rows, ``(row,)``; infinities are fine, they are ranked.
        first: arrangements, ``(arrangement, row)``, see `relabellings`.

    Returns:
        ``(arrangement,)``; 0 where all values are equal.

    Raises:
        ValueError: a value that is NaN.

    References:
        Pettitt 1976, A two-sample Anderson-Darling rank statistic, Biometrika 63, eq. 1.
        Scholz & Stephens 1987, K-sample Anderson-Darling tests, JASA 82, sec. 3 (the sum over distinct values, for
        ties). doi:10.1080/01621459.1987.10478517
    """
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} values are NaN, the first is {int(np.isnan(values).argmax())}")
    total = len(values)
    m = float(first[0].sum())
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(ordered[1:] != ordered[:-1])  # of each distinct value but the largest
    below = last + 1.0
    equal = np.diff(below, prepend=0.0)
    counted = np.cumsum(first[:, order], axis=1)[:, last]
    weight = equal / (below * (total - below))
    return np.asarray(((total * counted - m * below) ** 2 @ weight) / (m * (total - m)))


def discriminant(values: Array, first: Array, *, num_folds: int = 5, seed: int) -> tuple[Array, Array]:
    """How well a discriminant, fitted to the other folds, separates the rows of a fold, for each arrangement.

    Fisher's linear discriminant on the values and their squares, which sees shifts and changes of spread. It is
    refitted for every arrangement, in closed form: folds, standardisation and the shrunk covariance do not look at
    labels, and the total covariance gives the direction that the covariance within classes gives. So a permutation test
    of it is exact, with every row used for fitting and for judging.

    Args:
        values: of the pooled rows, ``(row, dimension)``.
        first: arrangements, ``(arrangement, row)``, see `relabellings`.
        num_folds: parts that are held out in turn.
        seed: of the folds.

    Returns:
        Area under the ROC curve, 1/2 on average for one distribution, ``(arrangement,)``; and the held-out scores of
        the given labels, larger for the second sample, ``(row,)``.

    Raises:
        ValueError: fewer rows than two for each fold and sample.

    References:
        Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests, sec. 3. arXiv:1610.06545
        Kim, Ramdas, Singh & Wasserman 2021, Classification accuracy as a proxy for two-sample testing, Annals of
        Statistics 49 (the linear discriminant). arXiv:1602.02210
        Ledoit & Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate
        Analysis 88.
    """
    from scipy.stats import rankdata
    from sklearn.covariance import ledoit_wolf

    m = int(first[0].sum())
    total = len(values)
    n = total - m
    if num_folds < 2 or min(m, n) < 2 * num_folds:
        raise ValueError(
            f"at least 2 folds with 2 rows of each sample required, got {num_folds} folds of {m} and {n} rows"
        )
    plain = _standardised(values)
    features = _standardised(np.concatenate([plain, plain**2], axis=1))
    fold = np.random.default_rng(seed).permutation(total) % num_folds
    scores = np.empty((total, len(first)))
    for k in range(num_folds):
        train, test = fold != k, fold == k
        covariance, _ = ledoit_wolf(features[train])
        covariance[np.diag_indices_from(covariance)] += _TINY
        of_first = first[:, train]
        count = of_first.sum(1, keepdims=True)
        sums = of_first @ features[train]
        # An arrangement that leaves none of a sample to train on scores all rows alike.
        difference = (features[train].sum(0) - sums) / np.maximum(train.sum() - count, 1) - sums / np.maximum(count, 1)
        scored = features[test] @ np.linalg.solve(covariance, difference.T)
        # Folds have discriminants of their own, whose scores are pooled on one scale.
        scores[test] = _standardised(scored)
    ranks = rankdata(scores, axis=0)
    below = ((1 - first).T * ranks).sum(0) - n * (n + 1) / 2
    return below / (m * n), scores[:, 0]


def _standardised(values: Array) -> Array:
    centred = values - values.mean(0)
    scale = centred.std(0)
    return np.asarray(np.divide(centred, scale, out=np.zeros_like(centred), where=scale > _TINY))


def min_p(statistics: Array) -> tuple[Array, Array]:
    """p-values of several statistics, one by one and adjusted for being several, from the same relabellings.

    Each statistic is judged by its own rank among arrangements, and the smallest of these p-values by its rank in turn:
    exact for all of them together whatever their dependence, where Holm's rule would be conservative.

    Args:
        statistics: ``(arrangement, statistic)``, the given arrangement first; larger is farther apart.

    Returns:
        p-values, and adjusted ones, whose smallest is the p-value of all statistics together; each ``(statistic,)``. A
        smallest adjusted value of at most ``a`` has probability ``a`` or less for one distribution.

    References:
        Phipson & Smyth 2010, Permutation p-values should never be zero, sec. 3. arXiv:1603.05766
        Westfall & Young 1993, Resampling-based multiple testing, ch. 2 (single-step minP).
    """
    rounded = _rounded(statistics, np.abs(statistics).max(0))
    p = np.empty(rounded.shape)
    for column, rising in enumerate(np.sort(rounded, axis=0).T):
        p[:, column] = len(rounded) - np.searchsorted(rising, rounded[:, column], side="left")
    least = p.min(1)
    return p[0] / len(p), (least[:, None] <= p[0]).mean(0)


def max_t(statistics: Array) -> Array:
    """Adjusted p-values of statistics that have one scale: the share of arrangements whose largest is as large.

    Rank statistics of different columns have one null distribution, and are treated alike by this; unlike `min_p` it
    can reject however many columns there are.

    Args:
        statistics: ``(arrangement, statistic)``, the given arrangement first; larger is farther apart.

    Returns:
        ``(statistic,)``.

    References:
        Westfall & Young 1993, Resampling-based multiple testing, ch. 2 (single-step maxT).
    """
    rounded = _rounded(statistics, np.abs(statistics).max())
    return np.asarray((rounded.max(1)[:, None] >= rounded[0]).mean(0))


def _rounded(statistics: Array, scale: Array) -> Array:
    """Twelve digits on a scale, so that arrangements that are the same up to rounding tie."""
    return np.asarray(np.round(statistics / np.where(scale > 0, scale, 1.0), 12))
