"""Single columns and pairs of columns of two tables, as numbers that a schema gives."""

from typing import Any

import numpy as np

from vae_pyro.data.tables.schema import CODED, Schema

type Array = np.ndarray[Any, Any]


def column_distance(first: Array, second: Array, num_classes: int) -> tuple[float, float]:
    """Distance of the distributions of one column in two samples, and the p-value of their equality.

    Args:
        first: shape ``(m,)``; NaN is missing.
        second: shape ``(n,)``.
        num_classes: of codes, whose distance is the total variation, missing values a class of their own; 0 for
            numbers, whose distance is the Kolmogorov-Smirnov statistic of what is observed.

    Returns:
        The distance, and the p-value: of the two-sample Kolmogorov-Smirnov test, or of Pearson's chi-squared test of
        homogeneity, in which classes with an expected count below 5 are one. 0 and 1 where nothing is observed.
    """
    from scipy.stats import chi2_contingency, ks_2samp

    if not num_classes:
        first, second = first[~np.isnan(first)], second[~np.isnan(second)]
        if not len(first) or not len(second):
            return 0.0, 1.0
        found = ks_2samp(first, second)
        return float(found.statistic), float(found.pvalue)
    counts = np.stack(
        [np.bincount(np.nan_to_num(x, nan=num_classes).astype(int), minlength=num_classes + 1) for x in (first, second)]
    )
    shares = counts / counts.sum(1, keepdims=True)
    expected = counts.sum(0) * counts.sum(1).min() / counts.sum()
    rare = expected < 5
    merged = np.concatenate([counts[:, ~rare], counts[:, rare].sum(1, keepdims=True)], 1)
    merged = merged[:, merged.sum(0) > 0]
    p_value = float(chi2_contingency(merged, correction=False).pvalue) if merged.shape[1] > 1 else 1.0
    return float(np.abs(shares[0] - shares[1]).sum() / 2), p_value


def associations(values: Array, schema: Schema) -> Array:
    """Association of each pair of columns, shape ``(column, column)``, symmetric.

    Of two numbers it is Spearman's rank correlation, between -1 and 1. Of a number and a category it is the correlation
    ratio of the ranks, of two categories Cramér's V, both between 0 and 1. Rows in which one of the two is missing are
    left out; NaN where fewer than 2 are left, or one column does not vary.

    References:
        Cramér 1946, Mathematical Methods of Statistics, sec. 21.9 (mean square contingency); Fisher 1925, Statistical
        Methods for Research Workers, sec. 45 (correlation ratio).
    """
    count = len(schema.columns)
    coded = [column.kind in CODED and column.kind != "ordinal" for column in schema.columns]
    found = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i):
            both = ~np.isnan(values[:, i]) & ~np.isnan(values[:, j])
            found[i, j] = found[j, i] = _association(values[both, i], values[both, j], coded[i], coded[j])
    return found


def _association(first: Array, second: Array, first_coded: bool, second_coded: bool) -> float:
    from scipy.stats import rankdata

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    if not first_coded and not second_coded:
        return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
    if first_coded and second_coded:
        return _cramers_v(first, second)
    codes, ranks = (first, rankdata(second)) if first_coded else (second, rankdata(first))
    _, group = np.unique(codes, return_inverse=True)
    size = np.bincount(group)
    means = np.bincount(group, weights=ranks) / size
    between = (size * (means - ranks.mean()) ** 2).sum()
    return float(np.sqrt(between / ((ranks - ranks.mean()) ** 2).sum()))


def _cramers_v(first: Array, second: Array) -> float:
    from scipy.stats import chi2_contingency

    _, i = np.unique(first, return_inverse=True)
    _, j = np.unique(second, return_inverse=True)
    table = np.zeros((i.max() + 1, j.max() + 1))
    np.add.at(table, (i, j), 1)
    statistic = chi2_contingency(table, correction=False).statistic
    return float(np.sqrt(statistic / (len(first) * (min(table.shape) - 1))))


def copies(known: Array, *tables: Array) -> list[Array]:
    """Which rows of each table are among the known ones, value for value; missing values equal each other."""
    seen = {row.tobytes() for row in _keys(known)}
    return [np.array([row.tobytes() in seen for row in _keys(rows)], dtype=bool) for rows in tables]


def _keys(values: Array) -> Array:
    return np.ascontiguousarray(np.nan_to_num(values.astype(np.float64), nan=np.inf) + 0.0)  # -0 is 0
