"""Rubin's rules against their formulas, and the coverage of their intervals."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from vae_pyro.applications.rubin import pool


def test_rubins_rules_by_hand() -> None:
    """Three estimates 1, 2, 3 with variance 1 each: B = 1, T = 1 + 4/3, r = 4/3, nu = 2 (1 + 3/4)^2."""
    pooled = pool([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert pooled.estimate == pytest.approx(2.0)
    assert pooled.variance == pytest.approx(7 / 3)
    assert pooled.df == pytest.approx(2 * (7 / 4) ** 2)
    assert pooled.relative_increase == pytest.approx(4 / 3)
    nu = pooled.df
    assert pooled.missing_information == pytest.approx((4 / 3 + 2 / (nu + 3)) / (4 / 3 + 1))
    # Barnard & Rubin with 20 degrees of freedom of the complete data.
    small = pool([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], df_complete=20)
    observed = 21 / 23 * 20 * (1 - (4 / 3) / (7 / 3))
    assert small.df == pytest.approx(1 / (1 / nu + 1 / observed))
    low, high = small.interval(0.95)
    assert high - 2.0 == pytest.approx(t.ppf(0.975, small.df) * np.sqrt(7 / 3))
    assert low + high == pytest.approx(4.0)


def test_without_variance_between_imputations_the_complete_data_speak() -> None:
    pooled = pool([2.0, 2.0], [1.0, 3.0], df_complete=10)
    assert pooled.variance == pytest.approx(2.0)
    assert pooled.missing_information == pytest.approx(0.0)
    assert pooled.df == pytest.approx(11 / 13 * 10)
    assert np.isinf(pool([2.0, 2.0], [1.0, 3.0]).df)


def test_intervals_of_rubin_cover_and_those_of_one_imputation_do_not() -> None:
    """The mean of a normal sample of which half is missing, imputed from its posterior predictive.

    200 samples: a coverage of 95 % has the standard error 1.5 %; below 90 % in 1 of 2,000 runs.
    """
    random = np.random.default_rng(0)
    n, m, repeats = 40, 20, 400
    covered = single = 0
    for _ in range(repeats):
        seen = random.normal(size=n // 2)
        estimates, variances = [], []
        for _ in range(m):
            sd = np.sqrt(((seen - seen.mean()) ** 2).sum() / random.chisquare(n // 2 - 1))
            loc = random.normal(seen.mean(), sd / np.sqrt(n // 2))
            whole = np.concatenate([seen, random.normal(loc, sd, n - n // 2)])
            estimates.append(whole.mean())
            variances.append(whole.var(ddof=1) / n)
        low, high = pool(estimates, variances, df_complete=n - 1).interval(0.95)
        covered += low < 0 < high
        single += abs(estimates[0]) < 2.02 * np.sqrt(variances[0])
    # Nominal 0.95: standard error 0.011 of 400; beyond 4 of them in 1 of 16,000 runs.
    assert abs(covered / repeats - 0.95) < 4 * 0.011
    assert single / repeats < 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0]), "at least 2 imputations"),
        (([1.0, 2.0], [1.0]), "shape"),
        (([1.0, 2.0], [1.0, -1.0]), "negative"),
        (([1.0, float("nan")], [1.0, 1.0]), "finite"),
    ],
)
def test_pooling_refuses(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(*arguments)


def test_pooling_refuses_no_variance_with_finite_degrees_of_freedom() -> None:
    assert np.isfinite(pool([1.0, 2, 3], [0.0, 0, 0]).interval()).all()
    with pytest.raises(ValueError, match="all variances of an estimate are 0"):
        pool([1.0, 2, 3], [0.0, 0, 0], df_complete=20)


def test_pooling_of_vectors_is_elementwise() -> None:
    estimates, variances = np.array([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0]]), np.ones((3, 2))
    pooled = pool(estimates, variances)
    np.testing.assert_allclose(pooled.variance, [1 + 4 / 3, 1 + 16 / 3])
    assert pooled.interval(0.9)[0].shape == (2,)


def test_summary_and_table() -> None:
    pooled = pool(np.array([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0]]), np.ones((3, 2)))
    table = pooled.to_dataframe()
    np.testing.assert_array_equal(table["estimate"], [2.0, 7.0])
    np.testing.assert_allclose(table["se"] ** 2, [1 + 4 / 3, 1 + 16 / 3])
    summary = pooled.summary()
    assert (summary["num_estimates"], summary["num_imputations"]) == (2, 3)
    assert summary["df_least"] == table["df"].min() == table["df"][1]  # of the second, which differs more
    assert summary["missing_information_most"] == table["missing_information"][1]
    assert pooled._repr_html_().count("<tr") == 3
    assert len(pool([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]).to_dataframe()) == 1
