"""Which kind a column of numbers is taken for, and why."""

import re
from typing import Any

import numpy as np

from vae_pyro.data.tables.cells import Values, skewness

MAX_COUNT = 10_000
# Whole numbers of at most so many different values, each in so many rows on average, are levels.
MAX_LEVELS, ROWS_OF_A_LEVEL = 20, 5
_SKEWED = 1.0
# Rows from which whole numbers without a gap or a repetition are taken for the numbers of the rows.
_NUMBERED_ROWS = 10
# A count has at least this share of a Poisson's variance, and a smallest value of at most this share of its mean.
_LEAST_DISPERSION, _LARGEST_START = 0.5, 0.5
# Probability below which what was seen would not have been seen of a count.
_CHANCE = 1e-3
_IDENTIFIER = re.compile(r"(^|[ _.\-])(id|uuid|guid|index|key|rownames?)$|[a-z]ID$|^unnamed: \d+$")


def kind_of_numbers(name: str, values: Values, levels: list[Any], rows: int) -> tuple[str | None, str]:
    """The kind of numbers that are observed, ``None`` where they are to be left out, and the reason.

    Args:
        name: of the column.
        values: that are observed, ``(value,)``.
        levels: different ones among them, rising.
        rows: of the table.
    """
    if len(levels) == 2:
        return "binary", "two values"
    low, high = float(values.min()), float(values.max())
    kind, reason = "real", "fractions"
    if (values == np.round(values)).all():
        left_out = _row_numbers(name, len(levels), len(values), rows, high - low + 1)
        if left_out:
            return None, f"{left_out}; to keep them, choose a kind"
        reason = why_no_count(values, levels)
        if not reason:
            return "count", "whole numbers from 0 with the mean and variance of a count"
        if len(levels) <= MAX_LEVELS and len(values) >= ROWS_OF_A_LEVEL * len(levels):
            return "ordinal", f"{len(levels)} whole numbers; {reason}"
    if low > 0 and skewness(values) > max(_SKEWED, abs(skewness(np.log(values)))):
        kind, reason = "positive", f"above zero and skewed; {reason}"
    return kind, reason


def _row_numbers(name: str, different: int, observed: int, rows: int, span: float) -> str:
    if different == rows >= _NUMBERED_ROWS and span == rows:
        return "whole numbers without a gap or a repetition number the rows"
    if different == observed >= _NUMBERED_ROWS and identifies(name):
        return "whole numbers without a repetition identify the rows, by their name"
    return ""


def identifies(name: str) -> bool:
    """Whether a column is called as identifiers of rows are.

    >>> [identifies(name) for name in ("id", "customer_id", "CustomerID", "Unnamed: 0", "paid", "humid")]
    [True, True, True, True, False, False]
    """
    return bool(_IDENTIFIER.search(name) or _IDENTIFIER.search(name.lower()))


def why_no_count(values: Values, levels: list[Any]) -> str:
    """Why whole numbers are not described by a negative binomial distribution of their mean and variance; empty if so.

    Args:
        values: that are observed, ``(value,)``.
        levels: different ones among them, rising.

    >>> why_no_count(np.random.default_rng(0).poisson(3, 200).astype(float), list(range(9)))
    ''
    >>> why_no_count(np.repeat([2007.0, 2008.0, 2009.0], 50), [2007, 2008, 2009])
    'no count: the variance 0.667 is far below the mean 2.01e+03'
    """
    low, high = float(values.min()), float(values.max())
    mean, variance = float(values.mean()), float(values.var())
    for wrong, what in (
        (low < 0, "some are below 0"),
        (high > MAX_COUNT, f"some are above {MAX_COUNT:,}"),
        (variance < _LEAST_DISPERSION * mean, f"the variance {variance:.3g} is far below the mean {mean:.3g}"),
        (low > _LARGEST_START * mean, f"they start at {low:g}, far from 0"),
    ):
        if wrong:
            return f"no count: {what}"
    below = _at_most(low - 1, mean, variance)
    above = 1 - _at_most(high, mean, variance)
    absences = [(below, f"none is below {low:g}"), (above, f"none is above {high:g}")]
    if len(levels) <= MAX_LEVELS:
        present = sum(_at_most(float(k), mean, variance) - _at_most(float(k) - 1, mean, variance) for k in levels)
        absences.append((1 - present - below - above, "values between them are absent"))
    return next((f"no count: {what}" for p, what in absences if (1 - p) ** len(values) < _CHANCE), "")


def _at_most(k: float, mean: float, variance: float) -> float:
    """P(X <= k) of a negative binomial of this mean and variance, of a Poisson where the variance is not above it."""
    from scipy.special import betainc, gammaincc

    if k < 0:
        return 0.0
    excess = variance - mean
    if excess <= 1e-6 * mean:
        return float(gammaincc(k + 1, mean))
    total = mean**2 / excess
    return float(betainc(total, k + 1, total / (total + mean)))
