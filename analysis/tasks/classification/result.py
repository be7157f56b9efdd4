"""The result of scoring predicted classes: error, proper scores and calibration."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.estimate import plus_minus
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# Calibration errors beyond what calibrated probabilities would show by chance: with many data, harmless ones are seen.
_SIGNIFICANT, _LARGE = 0.01, 0.02


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


@dataclass(frozen=True, eq=False, repr=False)
class ClassScores(Result):
    """Scores of predicted classes on data whose class is known.

    Attributes:
        size: number of data.
        error: share of the data whose most probable class is wrong.
        error_se: its binomial standard error, never below that of half a datum.
        error_interval: 95 % Clopper-Pearson interval of the error.
        majority_error: error of always naming the most frequent class of these data.
        log_score: mean log probability of the true class, in nats per datum; minus infinity where one has
            probability 0.
        log_score_se: standard error over data; NaN where the score is not finite.
        brier: mean over data of the sum over classes of squared differences, between 0 and 2.
        brier_se: standard error over data.
        overconfidence: mean confidence minus accuracy; positive for an overconfident classifier.
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
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether classes are learned, and whether their probabilities are calibrated."""
        return self._learned(), self._calibrated()

    def _learned(self) -> Verdict:
        outcome: Outcome = "pass" if self.error_interval[1] < self.majority_error else "fail"
        return Verdict(
            question="Is the error below that of always predicting the most frequent class?",
            value=self.error,
            error=self.error_se,
            unit="of the data wrong",
            threshold=f"95 % interval below {self.majority_error:.3g}",
            source="error of naming the most frequent class of these data",
            outcome=outcome,
            remedy="label more data, or raise the objective's alpha",
            name="class_error",
        )

    def _calibrated(self) -> Verdict:
        outcome: Outcome = "pass"
        if self.ece_p_value < _SIGNIFICANT:
            outcome = "fail" if self.excess_ece > _LARGE else "warn"
        side = "overconfident" if self.overconfidence > 0 else "underconfident"
        return Verdict(
            question="Are the probabilities of the classes calibrated?",
            value=self.excess_ece,
            error=None,
            unit="(expected calibration error beyond chance)",
            threshold=f"p >= {_SIGNIFICANT} for calibrated ones (here {self.ece_p_value:.2g}), or at most {_LARGE}",
            source="Bröcker & Smith 2007, sec. 3, for the test; the size by convention, 2 percentage points",
            outcome=outcome,
            remedy=f"the classifier is {side}; scale its logits on labelled validation data",
            name="class_calibration",
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        names = (
            "size", "error", "error_se", "majority_error", "log_score", "log_score_se", "brier", "brier_se",
            "overconfidence", "overconfidence_se", "ece", "ece_by_chance", "ece_p_value", "excess_ece",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return {**values, "error_low": self.error_interval[0], "error_high": self.error_interval[1]}

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a bin of the reliability diagram."""
        import pandas as pd

        bins = self.reliability
        names = ("count", "confidence", "accuracy", "low", "high")
        return pd.DataFrame({name: getattr(bins, name) for name in names}).rename_axis("bin")

    def plot(self) -> "Figure":
        """The reliability diagram, with consistency bars."""
        from analysis.tasks.classification.plot import plot_reliability

        bins = self.reliability
        return plot_reliability(bins.confidence, bins.accuracy, bins.low, bins.high)

    def __str__(self) -> str:
        low, high = self.error_interval
        return screen(
            [
                f"{self.size:,} data: error {plus_minus(100 * self.error, 100 * self.error_se, '%')} "
                f"(95 % {100 * low:.2f} to {100 * high:.2f})",
                f"  log score {plus_minus(self.log_score, self.log_score_se, 'nats per datum')}, "
                f"Brier score {plus_minus(self.brier, self.brier_se)}",
                f"  calibration error {self.ece:.4f} ({self.ece_by_chance:.4f} by chance, p = {self.ece_p_value:.2g}), "
                f"confidence minus accuracy {plus_minus(self.overconfidence, self.overconfidence_se)}",
            ]
        )
