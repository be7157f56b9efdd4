"""False alarms and discoveries come at the nominal rate over repetitions, and another rate is noticed."""

from math import ceil, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, betabinom

from analysis.monitoring.outliers.detection import conformal
from analysis.monitoring.outliers.result import Detection
from analysis.stats.conformal import conformal_p_values


def test_p_values_count_ties_against_the_new_datum() -> None:
    calibration = np.array([1.0, 2.0, 2.0, 3.0])
    assert conformal_p_values(calibration, np.array([0.0, 2.0, 2.5, 9.0, np.inf])).tolist() == [1, 0.8, 0.4, 0.2, 0.2]


@pytest.mark.parametrize("n", [1, 9, 19, 99, 100, 333])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_flags_what_the_p_values_do(n: int, alpha: float, ties: bool) -> None:
    random = np.random.default_rng(n)
    calibration, scores = random.normal(size=n), random.normal(size=500)
    if ties:
        calibration, scores = calibration.round(1), scores.round(1)
    if round((n + 1) * alpha, 9) < 1:
        with pytest.raises(
            ValueError, match=f"alpha={alpha:g} requires at least {ceil(1 / alpha - 1e-9) - 1} calibration data"
        ):
            conformal(calibration, scores, alpha=alpha)
        return
    found = conformal(calibration, scores, alpha=alpha)
    np.testing.assert_array_equal(found.flagged, scores > found.threshold)
    assert found.nominal == pytest.approx(np.floor(round((n + 1) * alpha, 9)) / (n + 1))
    assert found.nominal <= alpha


def alarms(n: int, count: int, alpha: float, repetitions: int) -> Any:
    """False alarms among ``count`` normal data, for each of many calibration sets."""
    random = np.random.default_rng(n)
    return np.array(
        [
            conformal(random.gamma(2.0, size=n), random.gamma(2.0, size=count), alpha=alpha).flagged.sum()
            for _ in range(repetitions)
        ]
    )


@pytest.mark.parametrize(("n", "alpha"), [(99, 0.05), (30, 0.1), (199, 0.013)])
def test_false_alarms_are_as_rare_as_the_nominal_rate(n: int, alpha: float) -> None:
    """Mean over 2,000 calibration sets of 50 new data, within 4 standard errors of the beta-binomial law (6e-5); its
    variance within 15 %, where the binomial one of a fixed rate would be off by a factor of 1.3 to 2.6."""
    rank = int(alpha * (n + 1) + 1e-9)
    law = betabinom(50, rank, n + 1 - rank)
    found = alarms(n, 50, alpha, 2000)
    assert abs(found.mean() - law.mean()) < 4 * law.std() / sqrt(2000)
    assert law.mean() <= 50 * alpha
    assert found.var() == pytest.approx(law.var(), rel=0.15)


def test_the_rate_of_a_calibration_set_lies_in_its_interval() -> None:
    """Uniform scores have the rate 1 - threshold. 95 % of 2,000 sets, within 4 binomial errors (6e-5)."""
    random = np.random.default_rng(0)
    inside = []
    for _ in range(2000):
        found = conformal(random.uniform(size=60), np.array([0.5]), alpha=0.1)
        low, high = found.false_alarm_interval
        inside.append(low < 1 - found.threshold < high)
    assert abs(np.mean(inside) - 0.95) < 4 * sqrt(0.95 * 0.05 / 2000)
    assert (low, high) == pytest.approx(beta.ppf([0.025, 0.975], 6, 55))


def fdr(n: int, shift: float, repetitions: int, alarm: Any) -> tuple[np.ndarray, np.ndarray]:
    """False discovery proportion and share of anomalies detected, of 80 normal data and 20 anomalies."""
    random = np.random.default_rng(7)
    anomalous = np.arange(100) < 20
    proportions, found = [], []
    for _ in range(repetitions):
        scores = random.normal(size=100) + shift * anomalous
        chosen = alarm(conformal(random.normal(size=n), scores, alpha=0.1))
        proportions.append((chosen & ~anomalous).sum() / max(chosen.sum(), 1))
        found.append(chosen[anomalous].mean())
    return np.array(proportions), np.array(found)


def test_discoveries_keep_the_false_discovery_rate() -> None:
    """0.2 x 0.8 is the bound of Benjamini and Hochberg, kept within 4 standard errors of 500 repetitions (3e-5) and not
    wasted; a threshold on each p-value breaks it."""
    rate, found = fdr(199, 3.0, 500, lambda detection: detection.discoveries(0.2))
    assert rate.mean() < 0.16 + 4 * rate.std() / sqrt(500)
    assert rate.mean() > 0.10
    assert found.mean() > 0.8
    single, _ = fdr(199, 3.0, 500, lambda detection: detection.flagged)
    assert single.mean() > 0.2 + 4 * single.std() / sqrt(500)


def test_there_are_seldom_discoveries_where_nothing_is_to_be_found() -> None:
    """With no anomaly every discovery is false, so that one is made in at most 10 % of sets: 4 errors of 400 (3e-5)."""
    random = np.random.default_rng(3)
    made = [conformal(random.normal(size=199), random.normal(size=50)).discoveries(0.1).any() for _ in range(400)]
    assert np.mean(made) < 0.1 + 4 * sqrt(0.1 * 0.9 / 400)


def verdict(detection: Detection, name: str) -> str:
    return next(one.outcome for one in detection.verdicts if one.name == name)


@pytest.mark.parametrize("known", [True, False])
def test_a_kept_promise_passes(known: bool) -> None:
    """A warning comes to at most 1 % of exchangeable sets: of 500, to fewer than 0.01 + 4 errors (3e-5)."""
    random = np.random.default_rng(11)
    warned = []
    for _ in range(500):
        calibration, scores = random.normal(size=199), random.normal(size=100)
        labels = np.zeros(100, dtype=bool) if known else None
        warned.append(verdict(conformal(calibration, scores, anomalous=labels), "false_alarms") != "pass")
    assert np.mean(warned) < 0.01 + 4 * sqrt(0.01 * 0.99 / 500)


def test_a_broken_promise_is_noticed() -> None:
    """Calibrated on the data of an overfitted model (their scores lower by one standard deviation), 26 % of normal data
    are flagged instead of 5 %: all of 100 sets fail. Where it is not known what is normal it is a warning."""
    random = np.random.default_rng(12)
    for _ in range(100):
        calibration, scores = random.normal(size=499) - 1, random.normal(size=200)
        assert verdict(conformal(calibration, scores, anomalous=np.zeros(200, bool)), "false_alarms") == "fail"
        assert verdict(conformal(calibration, scores), "false_alarms") == "warn"


def test_verdicts_of_the_score() -> None:
    random = np.random.default_rng(13)
    labels = np.arange(200) < 100
    calibration, noise = random.normal(size=99), random.normal(size=200)
    for shift, outcome in ((2.0, "pass"), (0.0, "warn"), (-2.0, "fail")):
        found = conformal(calibration, noise + shift * labels, anomalous=labels, score="log_px")
        assert verdict(found, "auroc") == outcome
        assert all(one.source and one.question.endswith("?") for one in found.verdicts)
    assert "typicality" in found.verdicts[-1].advice


def test_it_prints_and_sums_up() -> None:
    random = np.random.default_rng(14)
    labels = np.arange(60) < 20
    found = conformal(random.normal(size=199), random.normal(size=60) + 2 * labels, anomalous=labels, alpha=0.05)
    text = str(found)
    assert 2 <= len(text.splitlines()) <= 6
    assert "nominal false-alarm rate 5.0%" in text
    assert "anomalies detected" in text
    assert "AUROC" in text
    summary = found.summary()
    assert set(summary) >= {"alpha", "promised", "false_alarms", "false_alarms_se", "power", "power_se", "auroc"}
    assert all(isinstance(value, str | int | float) for value in summary.values())
    unknown = conformal(random.normal(size=199), random.normal(size=60))
    assert unknown.false_alarms is unknown.power is unknown.separation is None
    assert len(str(unknown).splitlines()) == 2
    only = conformal(random.normal(size=199), random.normal(size=60) + 5, anomalous=np.ones(60, bool))
    assert only.verdicts == ()
    assert only.power is not None
    assert only.power[0] > 0.9


def test_bad_input_is_refused() -> None:
    scores = np.zeros(5)
    with pytest.raises(ValueError, match="calibration data are required, got \\(0,\\) and \\(5,\\)"):
        conformal_p_values(np.zeros(0), scores)
    with pytest.raises(ValueError, match="2 calibration scores are NaN, the first is 1"):
        conformal_p_values(np.array([0.0, np.nan, np.nan]), scores)
    with pytest.raises(ValueError, match="alpha lies between 0 and 1, got 5"):
        conformal(np.zeros(99), scores, alpha=5)
    with pytest.raises(ValueError, match="anomalous has shape \\(4,\\), the new data \\(5,\\)"):
        conformal(np.zeros(99), scores, anomalous=np.zeros(4, bool))
    with pytest.raises(ValueError, match="lies between 0 and 1, got 1.5"):
        conformal(np.zeros(99), scores).discoveries(1.5)
