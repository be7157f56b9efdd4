"""How good are predicted classes, and do their probabilities mean what they say? Error, scores and calibration."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict

type Array = np.ndarray[Any, Any]

# Calibration errors beyond what calibrated probabilities would show by chance: with many data, harmless ones are seen.
_SIGNIFICANT, _LARGE = 0.01, 0.02
_AT_ONCE = 1 << 22
_SUMS_TO_ONE = 1e-4


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram of the most probable class, in bins of equally many data.

    Attributes:
        count: data in each bin, shape ``(bin,)``; confidence rises from bin to bin.
        confidence: mean probability of the most probable class.
        accuracy: share of the bin in which it is the true one.
        low: of 95 % of the accuracies that a calibrated classifier would show in this bin (consistency bar).
        high: likewise.
    """

    count: Array
    confidence: Array
    accuracy: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class ClassScores:
    """Scores of predicted classes on data whose class is known.

    Attributes:
        size: number of data.
        error: share of the data whose most probable class is wrong.
        error_se: its binomial standard error, never below that of half a datum.
        error_interval: 95 % Clopper-Pearson interval of the error.
        majority_error: error of always naming the most frequent class of these data.
        log_score: mean log probability of the true class, in nats per datum; minus infinity where one is held for
            impossible.
        log_score_se: standard error over data; NaN where the score is not finite.
        brier: mean over data of the sum over classes of squared differences, between 0 and 2.
        brier_se: standard error over data.
        overconfidence: mean confidence minus accuracy; positive for a classifier that promises too much.
        overconfidence_se: standard error over data.
        ece: expected calibration error of the most probable class: mean over data of the distance of confidence and
            accuracy in the datum's bin.
        ece_by_chance: its mean for calibrated probabilities as confident as these. That much of ``ece`` is bias:
            an accuracy that is counted differs from its expectation, and distances do not average out.
        ece_p_value: probability of so large an ``ece`` if these probabilities are calibrated.
        reliability: the bins.
    """

    size: int
    error: float
    error_se: float
    error_interval: tuple[float, float]
    majority_error: float
    log_score: float
    log_score_se: float
    brier: float
    brier_se: float
    overconfidence: float
    overconfidence_se: float
    ece: float
    ece_by_chance: float
    ece_p_value: float
    reliability: Reliability

    @property
    def excess_ece(self) -> float:
        """``ece`` less its bias, at least 0; too low yet where over- and underconfidence cancel within a bin."""
        return max(self.ece - self.ece_by_chance, 0.0)

    @property
    def verdicts(self) -> list[Verdict]:
        """Whether classes are learned, and whether their probabilities can be trusted."""
        return [self._learned(), self._calibrated()]

    def _learned(self) -> Verdict:
        outcome: Outcome = "pass" if self.error_interval[1] < self.majority_error else "fail"
        return Verdict(
            question="Does the classifier know more than the most frequent class?",
            figure=self.error,
            error=self.error_se,
            unit="of the data wrong",
            threshold=f"95 % interval below {self.majority_error:.3g}",
            source="error of naming the most frequent class of these data",
            outcome=outcome,
            advice="" if outcome == "pass" else "label more data, or raise the objective's alpha",
            name="class_error",
        )

    def _calibrated(self) -> Verdict:
        outcome: Outcome = "pass"
        if self.ece_p_value < _SIGNIFICANT:
            outcome = "fail" if self.excess_ece > _LARGE else "warn"
        side = "too confident" if self.overconfidence > 0 else "not confident enough"
        return Verdict(
            question="Are the probabilities of the classes calibrated?",
            figure=self.excess_ece,
            error=None,
            unit="(expected calibration error beyond chance)",
            threshold=f"p >= {_SIGNIFICANT} for calibrated ones (here {self.ece_p_value:.2g}), or at most {_LARGE}",
            source="Bröcker & Smith 2007, sec. 3, for the test; the size by convention, 2 of 100 promises",
            outcome=outcome,
            advice=""
            if outcome == "pass"
            else f"the classifier is {side}; scale its logits on labelled validation data",
            name="class_calibration",
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        names = (
            "size", "error", "error_se", "majority_error", "log_score", "log_score_se", "brier", "brier_se",
            "overconfidence", "overconfidence_se", "ece", "ece_by_chance", "ece_p_value", "excess_ece",
        )  # fmt: skip
        figures = {name: getattr(self, name) for name in names}
        return {**figures, "error_low": self.error_interval[0], "error_high": self.error_interval[1]}

    def __str__(self) -> str:
        low, high = self.error_interval
        return (
            f"{self.size} data: error {plus_minus(100 * self.error, 100 * self.error_se, '%')} "
            f"(95 % {100 * low:.2f} to {100 * high:.2f}), "
            f"log score {plus_minus(self.log_score, self.log_score_se, 'nats per datum')}, "
            f"Brier score {plus_minus(self.brier, self.brier_se)}, "
            f"calibration error {self.ece:.4f} ({self.ece_by_chance:.4f} by chance, p = {self.ece_p_value:.2g}), "
            f"confidence less accuracy {plus_minus(self.overconfidence, self.overconfidence_se)}"
        )


def class_scores(
    probabilities: Array,
    labels: Array,
    *,
    log_probabilities: Array | None = None,
    num_bins: int = 15,
    num_resamples: int = 1000,
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
            such as `vae_pyro.applications.classification.Classification.log_of`; taken from ``probabilities`` if not
            given.
        num_bins: of the reliability diagram, of equally many data.
        num_resamples: labels drawn for the test.
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
        Brier 1950, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78.
    """
    p, y = _checked(probabilities, labels, num_bins)
    size = len(p)
    rows = np.arange(size)
    correct = p.argmax(1) == y
    confidence = p.max(1)
    wrong = int((~correct).sum())
    error = wrong / size
    logs = _logs(p, log_probabilities)[rows, y]
    brier = (p**2).sum(1) - 2 * p[rows, y] + 1
    gap = confidence - correct
    order = np.argsort(confidence, kind="stable")
    bins = np.arange(size) * num_bins // size  # of the data in the order of their confidence
    ece, accuracy = _ece(confidence[order], correct[order][None], bins, num_bins)
    by_chance, bars = _under_calibration(confidence[order], bins, num_bins, num_resamples, seed)
    count = np.bincount(bins, minlength=num_bins)
    return ClassScores(
        size=size,
        error=error,
        error_se=max(sqrt(error * (1 - error) / size), 0.5 / size),
        error_interval=clopper_pearson(wrong, size),
        majority_error=1 - float(np.bincount(y).max()) / size,
        log_score=float(logs.mean()),
        log_score_se=_standard_error(logs) if np.isfinite(logs).all() else float("nan"),
        brier=float(brier.mean()),
        brier_se=_standard_error(brier),
        overconfidence=float(gap.mean()),
        overconfidence_se=_standard_error(gap),
        ece=float(ece[0]),
        ece_by_chance=float(by_chance.mean()),
        # A relative tolerance, since equal sums may differ in their last bits.
        ece_p_value=float((1 + (by_chance >= ece[0] * (1 - 1e-12)).sum()) / (1 + num_resamples)),
        reliability=Reliability(
            count, np.bincount(bins, confidence[order], num_bins) / count, accuracy[0], bars[0], bars[1]
        ),
    )


def clopper_pearson(count: int, size: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability of which ``count`` of ``size`` trials are known to have happened.

    References:
        Clopper & Pearson 1934, The use of confidence or fiducial limits illustrated in the case of the binomial,
        Biometrika 26. doi:10.1093/biomet/26.4.404
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, size - count + 1))
    high = 1.0 if count == size else float(beta.ppf(1 - tail, count + 1, size - count))
    return low, high


def _ece(confidence: Array, correct: Array, bins: Array, num_bins: int) -> tuple[Array, Array]:
    """Calibration errors ``(set,)`` and accuracies ``(set, bin)`` of sets of outcomes ``(set, datum)``."""
    starts = np.searchsorted(bins, np.arange(num_bins))
    counts = np.diff([*starts, len(bins)])
    right = np.add.reduceat(correct.astype(np.float64), starts, axis=1)
    promised = np.add.reduceat(confidence, starts)
    return np.abs(right - promised).sum(1) / len(bins), right / counts


def _under_calibration(
    confidence: Array, bins: Array, num_bins: int, num_resamples: int, seed: int
) -> tuple[Array, Array]:
    """Calibration errors of outcomes drawn as the confidences say, and 95 % of the accuracies, ``(2, bin)``."""
    random = np.random.default_rng(seed)
    errors, accuracies = [], []
    at_once = max(_AT_ONCE // len(confidence), 1)
    for start in range(0, num_resamples, at_once):
        drawn = random.random((min(at_once, num_resamples - start), len(confidence))) < confidence
        error, accuracy = _ece(confidence, drawn, bins, num_bins)
        errors.append(error)
        accuracies.append(accuracy)
    return np.concatenate(errors), np.quantile(np.concatenate(accuracies), [0.025, 0.975], axis=0)


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1)) / sqrt(len(values))


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
        raise ValueError(f"probabilities (datum, class) and integers (datum,) wanted, got {p.shape} and {y.shape}")
    if num_bins < 1 or len(p) < max(num_bins, 2):
        raise ValueError(f"at least one datum in each of {num_bins} bins, and 2 in all, wanted; got {len(p)}")
    if not (np.isfinite(p).all() and p.min() >= 0 and np.abs(p.sum(1) - 1).max() <= _SUMS_TO_ONE):
        raise ValueError("probabilities of the classes of a datum are not negative, and sum to 1; these are not so")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels from 0 to {p.shape[1] - 1} wanted, got {y.min()} to {y.max()}")
    return p, y.astype(np.int64)
