"""Score predicted classes: error, proper scores, and calibration of their probabilities."""

from math import sqrt
from typing import Any

import numpy as np

from analysis.tasks.classification.result import ClassScores, Reliability
from vae_pyro.core.means import standard_error
from vae_pyro.core.renamed import renamed

type Array = np.ndarray[Any, Any]

_AT_ONCE = 1 << 22
_SUMS_TO_ONE = 1e-4


@renamed(num_resamples="num_bootstrap")
def class_scores(
    probabilities: Array,
    labels: Array,
    *,
    log_probabilities: Array | None = None,
    num_bins: int = 15,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> ClassScores:
    """Score predicted classes.

    Calibration is tested by consistency resampling: given the confidences, a calibrated classifier is right in each
    datum with that probability, so that labels drawn so show the law of the calibration error under calibration,
    whatever the bins. The test sees the most probable class alone.

    Args:
        probabilities: of each class, shape ``(datum, class)``; rows sum to 1.
        labels: true classes, integers ``(datum,)``.
        log_probabilities: their logarithms in nats, same shape, for the log score of what is too small for a number,
            such as `vae_pyro.applications.classification_result.Classification.log_of`; taken from ``probabilities`` if
            not given.
        num_bins: of the reliability diagram, of equally many data.
        num_bootstrap: labels drawn for the test.
        seed: of them.

    Raises:
        ValueError: shapes that do not match, fewer data than bins, what is no probability, labels that are no classes,
            or logarithms of other probabilities.

    References:
        Guo et al. 2017, On calibration of modern neural networks, eq. 3 (ECE). arXiv:1706.04599
        Bröcker & Smith 2007, Increasing the reliability of reliability diagrams, Weather and Forecasting 22
        (consistency resampling). doi:10.1175/WAF993.1
        Kumar, Liang & Ma 2019, Verified uncertainty calibration, sec. 3 (bins hide miscalibration inside them).
        arXiv:1909.10155
        Clopper & Pearson 1934, The use of confidence or fiducial limits illustrated in the case of the binomial,
        Biometrika 26 (interval of the error). doi:10.1093/biomet/26.4.404
        Brier 1950, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78.
    """
    from scipy.stats import binomtest

    p, y = _checked(probabilities, labels, num_bins)
    size = len(p)
    rows = np.arange(size)
    correct = p.argmax(1) == y
    confidence = p.max(1)
    wrong = int((~correct).sum())
    error = wrong / size
    interval = binomtest(wrong, size).proportion_ci(0.95, method="exact")
    logs = _logs(p, log_probabilities)[rows, y]
    brier = (p**2).sum(1) - 2 * p[rows, y] + 1
    gap = confidence - correct
    order = np.argsort(confidence, kind="stable")
    bins = np.arange(size) * num_bins // size  # of the data in the order of their confidence
    ece, accuracy = _ece(confidence[order], correct[order][None], bins, num_bins)
    by_chance, bars = _under_calibration(confidence[order], bins, num_bins, num_bootstrap, seed)
    count = np.bincount(bins, minlength=num_bins)
    return ClassScores(
        size=size,
        error=error,
        error_se=max(sqrt(error * (1 - error) / size), 0.5 / size),
        error_interval=(float(interval.low), float(interval.high)),
        majority_error=1 - float(np.bincount(y).max()) / size,
        log_score=float(logs.mean()),
        log_score_se=standard_error(logs) if np.isfinite(logs).all() else float("nan"),
        brier=float(brier.mean()),
        brier_se=standard_error(brier),
        overconfidence=float(gap.mean()),
        overconfidence_se=standard_error(gap),
        ece=float(ece[0]),
        ece_by_chance=float(by_chance.mean()),
        # A relative tolerance, since equal sums may differ in their last bits.
        ece_p_value=float((1 + (by_chance >= ece[0] * (1 - 1e-12)).sum()) / (1 + num_bootstrap)),
        reliability=Reliability(
            count, np.bincount(bins, confidence[order], num_bins) / count, accuracy[0], bars[0], bars[1]
        ),
    )


def _ece(confidence: Array, correct: Array, bins: Array, num_bins: int) -> tuple[Array, Array]:
    """Calibration errors ``(set,)`` and accuracies ``(set, bin)`` of sets of outcomes ``(set, datum)``."""
    starts = np.searchsorted(bins, np.arange(num_bins))
    counts = np.diff([*starts, len(bins)])
    right = np.add.reduceat(correct.astype(np.float64), starts, axis=1)
    expected = np.add.reduceat(confidence, starts)
    return np.abs(right - expected).sum(1) / len(bins), right / counts


def _under_calibration(
    confidence: Array, bins: Array, num_bins: int, num_bootstrap: int, seed: int
) -> tuple[Array, Array]:
    """Calibration errors of outcomes drawn by the confidences, and 95 % of the accuracies, ``(2, bin)``."""
    random = np.random.default_rng(seed)
    errors, accuracies = [], []
    at_once = max(_AT_ONCE // len(confidence), 1)
    for start in range(0, num_bootstrap, at_once):
        drawn = random.random((min(at_once, num_bootstrap - start), len(confidence))) < confidence
        error, accuracy = _ece(confidence, drawn, bins, num_bins)
        errors.append(error)
        accuracies.append(accuracy)
    return np.concatenate(errors), np.quantile(np.concatenate(accuracies), [0.025, 0.975], axis=0)


def _logs(p: Array, given: Array | None) -> Array:
    if given is None:
        with np.errstate(divide="ignore"):  # minus infinity is what the score of an impossible class is
            logs: Array = np.log(p)
        return logs
    logs = np.asarray(given, dtype=np.float64)
    if logs.shape != p.shape or not np.abs(np.exp(np.minimum(logs, 1.0)) - p).max() <= _SUMS_TO_ONE:
        raise ValueError("log_probabilities are the logarithms of probabilities, of the same shape; these are not so")
    return logs


def _checked(probabilities: Array, labels: Array, num_bins: int) -> tuple[Array, Array]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != (len(p),) or y.dtype.kind not in "iu":
        raise ValueError(
            f"probabilities (datum, class) and integers (datum,) are required, got {p.shape} and {y.shape}"
        )
    if num_bins < 1 or len(p) < max(num_bins, 2):
        raise ValueError(f"at least one datum in each of {num_bins} bins, and 2 in total, are required; got {len(p)}")
    if not (np.isfinite(p).all() and p.min() >= 0 and np.abs(p.sum(1) - 1).max() <= _SUMS_TO_ONE):
        raise ValueError("probabilities of the classes of a datum are not negative, and sum to 1; these are not so")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels from 0 to {p.shape[1] - 1} are required, got {y.min()} to {y.max()}")
    return p, y.astype(np.int64)
