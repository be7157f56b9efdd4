"""AUROC and average precision are scikit-learn's, and their standard errors those of repetitions."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm

from analysis.stats.detection_scores import separation


def draws(shift: float, size: tuple[int, int], seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    low, high = random.normal(size=size[0]), random.normal(size=size[1]) + shift
    return (low.round(), high.round()) if ties else (low, high)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 2.0])
def test_they_are_those_of_scikit_learn(shift: float, ties: bool) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    low, high = draws(shift, (300, 70), seed=1, ties=ties)
    found = separation(low, high)
    labels, scores = np.r_[np.zeros(300), np.ones(70)], np.r_[low, high]
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert found.average_precision == pytest.approx(average_precision_score(labels, scores))
    assert found.prevalence == pytest.approx(70 / 370)


@pytest.mark.parametrize("ties", [False, True])
def test_standard_errors_are_those_of_repetitions(ties: bool) -> None:
    """The root mean square of 400 of them beside the standard deviation of 400 estimates, which has a relative error of
    1 / sqrt(800) = 0.035; 4 of these are allowed, and 5 % for the order of the approximation: 1 in 10,000 seeds."""
    found = [separation(*draws(1.2, (120, 60), seed, ties)) for seed in range(400)]
    for name in ("auroc", "average_precision"):
        values = np.array([getattr(one, name) for one in found])
        errors = np.array([getattr(one, f"{name}_se") for one in found])
        assert sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=4 / sqrt(800) + 0.05)


def test_auroc_meets_its_closed_form_within_its_error() -> None:
    """Two normals d apart have AUROC Phi(d / sqrt 2). |z| < 1.96 in 95 % of 400, within 4 binomial errors (6e-5)."""
    z = []
    for seed in range(400):
        found = separation(*draws(1.2, (200, 100), seed))
        z.append((found.auroc - norm.cdf(1.2 / sqrt(2))) / found.auroc_se)
    assert abs((np.abs(z) < 1.96).mean() - 0.95) < 4 * sqrt(0.95 * 0.05 / 400)


def test_average_precision_meets_its_integral() -> None:
    """E over anomalies of the precision at their score, at the prevalence of a third, from 400 sets of 3,000 within 5
    standard errors; the estimate's own bias is of the order of 1 / 1,000, a tenth of one set's error."""
    grid = np.linspace(-6, 8, 20_001)
    precision = norm.sf(grid - 1.2) / (norm.sf(grid - 1.2) + 2 * norm.sf(grid))
    expected = float((precision * norm.pdf(grid - 1.2)).sum() * (grid[1] - grid[0]))
    values = [separation(*draws(1.2, (2000, 1000), seed)).average_precision for seed in range(400)]
    assert np.mean(values) == pytest.approx(expected, abs=5 * np.std(values) / sqrt(400) + 1e-3)


def test_a_perfect_score_is_not_called_certain() -> None:
    found = separation(np.arange(10.0), np.arange(20.0, 25.0))
    assert (found.auroc, found.average_precision) == (1.0, 1.0)
    assert found.auroc_se == found.average_precision_se == pytest.approx(0.1)
    assert "AUROC 1.000 ± 0.100 (chance 0.5)" in str(found)
    turned = separation(np.arange(20.0, 30.0), np.arange(5.0))
    assert turned.auroc == 0.0


def test_infinite_scores_are_ranked_and_nan_is_refused() -> None:
    found = separation(np.array([0.0, 1.0]), np.array([np.inf, 2.0]))
    assert found.auroc == 1.0
    with pytest.raises(ValueError, match="none NaN"):
        separation(np.array([0.0, np.nan]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="at least 2 scores of either kind required, none NaN; got 2 and 1"):
        separation(np.array([0.0, 1.0]), np.array([1.0]))
