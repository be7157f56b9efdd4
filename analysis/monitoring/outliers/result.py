"""The result of conformal detection: new data against the scores of calibration data."""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.conformal import conformal_rank, false_alarm_error, false_alarm_interval, false_alarm_p_value
from analysis.stats.detection_scores import Separation, separation
from vae_pyro.core.renamed import Former

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# Probabilities, under exchangeability, of at least so many false alarms, at which a verdict turns.
_WARN, _FAIL = 0.01, 0.001


@dataclass(frozen=True, eq=False, repr=False)
class Detection(Result):
    """New data against the scores of calibration data.

    Attributes:
        scores: of the new data, larger for stranger, ``(datum,)``.
        calibration: scores of the calibration data.
        p_values: conformal p-value of each new datum.
        alpha: nominal false-alarm rate, an upper bound.
        score: its name.
        ids: of the new data.
        anomalous: which of the new data are known to be anomalies; ``None`` where it is not known.
    """

    scores: Array
    calibration: Array
    p_values: Array
    alpha: float
    score: str
    ids: Array
    anomalous: Array | None = None
    promised = Former("nominal")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def flagged(self) -> Array:
        """Data with a p-value of at most `alpha`; boolean, ``(datum,)``; with false alarms at the nominal rate."""
        return self.p_values <= self.alpha

    @property
    def threshold(self) -> float:
        """Score above which a datum is flagged."""
        return float(np.sort(self.calibration)[len(self.calibration) - self._rank])

    @property
    def nominal(self) -> float:
        """False-alarm rate over calibration sets where no scores tie: `alpha`, or less by less than 1 / (n + 1)."""
        return self._rank / (len(self.calibration) + 1)

    @property
    def false_alarm_interval(self) -> tuple[float, float]:
        """Range of the false-alarm rate of this calibration set, see `analysis.stats.conformal`."""
        return false_alarm_interval(self._rank, len(self.calibration))

    @property
    def _rank(self) -> int:
        """Number of calibration data at or above the threshold, this one included, plus one for the new datum."""
        return conformal_rank(self.alpha, len(self.calibration))

    def discoveries(self, rate: float = 0.1) -> Array:
        """Data flagged so that the expected share of false alarms among them is at most ``rate``; ``(datum,)``.

        The procedure of Benjamini & Hochberg. It requires independent p-values or positive dependence; conformal ones
        share a calibration set, and are positively dependent.

        References:
            Benjamini & Hochberg 1995, Controlling the false discovery rate, JRSS B 57, theorem 1.
            doi:10.1111/j.2517-6161.1995.tb02031.x
            Bates et al. 2023, Testing for outliers with conformal p-values, Annals of Statistics 51, theorem 2.
            arXiv:2104.08279
        """
        if not 0 < rate < 1:
            raise ValueError(f"a rate of false discoveries lies between 0 and 1, got {rate}")
        from scipy.stats import false_discovery_control

        return np.asarray(false_discovery_control(self.p_values) <= rate)

    @property
    def false_alarms(self) -> tuple[float, float] | None:
        """Share of normal new data that is flagged, and its standard error; ``None`` where they are not known.

        The error holds both sources: which data are new, and which calibrated.
        """
        if self.anomalous is None or self.anomalous.all():
            return None
        normal = ~self.anomalous
        return float(self.flagged[normal].mean()), self._error(int(normal.sum()))

    @property
    def power(self) -> tuple[float, float] | None:
        """Share of known anomalies that is flagged, and its standard error; ``None`` where there are none."""
        if self.anomalous is None or not self.anomalous.any():
            return None
        share = float(self.flagged[self.anomalous].mean())
        return share, sqrt(share * (1 - share) / int(self.anomalous.sum()))

    @property
    def separation(self) -> Separation | None:
        """AUROC and average precision; ``None`` unless both kinds are known."""
        if self.anomalous is None or self.anomalous.all() or not self.anomalous.any():
            return None
        return separation(self.scores[~self.anomalous], self.scores[self.anomalous])

    def _error(self, num_normal: int) -> float:
        return false_alarm_error(self._rank, len(self.calibration), num_normal)

    def summary(self) -> dict[str, Any]:
        """Rates and their errors, JSON-able."""
        low, high = self.false_alarm_interval
        values: dict[str, Any] = {
            "score": self.score,
            "alpha": self.alpha,
            "threshold": self.threshold,
            "promised": self.nominal,
            "false_alarm_low": low,
            "false_alarm_high": high,
            "n": len(self),
            "n_calibration": len(self.calibration),
            "num_flagged": int(self.flagged.sum()),
        }
        for name, pair in (("false_alarms", self.false_alarms), ("power", self.power)):
            if pair is not None:
                values |= {name: pair[0], f"{name}_se": pair[1]}
        found = self.separation
        if found is not None:
            values |= {"auroc": found.auroc, "auroc_se": found.auroc_se}
            values |= {"average_precision": found.average_precision, "average_precision_se": found.average_precision_se}
        return values

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the false-alarm rate is nominal, and whether the score separates anomalies from normal data."""
        known = self.false_alarms
        normal = np.ones(len(self), dtype=bool) if self.anomalous is None else ~self.anomalous
        count, alarms = int(normal.sum()), int(self.flagged[normal].sum())
        found = []
        if count:
            p = false_alarm_p_value(alarms, self._rank, len(self.calibration), count)
            outcome: Outcome = "pass" if p > _WARN else "warn" if known is None or p > _FAIL else "fail"
            advice = (
                ""
                if outcome == "pass"
                else "the data are not exchangeable with the calibration data: "
                + (
                    "some are anomalies, or all come from another distribution"
                    if known is None
                    else "calibrate on data that the fit did not see, from the source of the new data"
                )
            )
            found.append(
                Verdict(
                    "Are new data flagged more often than normal data would be?"
                    if known is None
                    else "Is the false-alarm rate nominal?",
                    alarms / count,
                    self._error(count),
                    "of the data" if known is None else "of the normal data",
                    f"{self.nominal:.3g}, unless by chance (probability {p:.2g}, expected above {_WARN:g})",
                    "Vovk 2012, arXiv:1209.2673, sec. 2: the number of alarms is beta-binomial",
                    outcome,
                    advice,
                    "false_alarms",
                )
            )
        both = self.separation
        if both is not None:
            distance = both.auroc - 0.5
            sides: Outcome = (
                "pass" if distance > 2 * both.auroc_se else "fail" if distance < -2 * both.auroc_se else "warn"
            )
            found.append(
                Verdict(
                    f"Does the score {self.score!r} separate anomalies from normal data?",
                    both.auroc,
                    both.auroc_se,
                    "AUROC",
                    "above 0.5 by 2 standard errors; below it by as many fails",
                    "DeLong et al. 1988, Biometrics 44; 0.5 is chance",
                    sides,
                    {
                        "pass": "",
                        "warn": "no better than chance: take another score, or a better model",
                        "fail": "the anomalies look more normal than normal data; take score='typicality'",
                    }[sides],
                    "auroc",
                )
            )
        return tuple(found)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a new datum, by its id: score, p-value, whether flagged, and whether known to be an anomaly."""
        import pandas as pd

        columns = {"score": self.scores, "p_value": self.p_values, "flagged": self.flagged}
        if self.anomalous is not None:
            columns["anomalous"] = self.anomalous
        return pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))

    def plot(self) -> "Figure":
        """Scores of the calibration data and of the new data, with the threshold."""
        from analysis.plotting import plot_scores

        threshold = self.threshold if np.isfinite(self.threshold) else None
        names, label = ("calibration data", "new data"), f"score {self.score!r}"
        return plot_scores(self.calibration, self.scores, threshold=threshold, names=names, xlabel=label)

    def __str__(self) -> str:
        low, high = self.false_alarm_interval
        lines = [
            f"{int(self.flagged.sum()):,} of {len(self):,} data flagged by {self.score!r} above {self.threshold:.4g}, "
            f"against {len(self.calibration):,} calibration data",
            f"  nominal false-alarm rate {self.nominal:.1%}; with these calibration data {low:.1%} to {high:.1%}",
        ]
        for name, pair in (("false alarms", self.false_alarms), ("anomalies detected", self.power)):
            if pair is not None:
                lines.append(f"  {name}: {pair[0]:.1%} ± {pair[1]:.1%}")
        if self.separation is not None:
            lines.append(f"  {self.separation}")
        return screen(lines)
