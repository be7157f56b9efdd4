"""Conformal detection: any score of strangeness becomes a p-value, by its rank among scores of normal data.

False alarms are then as rare as promised, whatever the score; it decides the power alone. The promise is an average
over calibration sets: the rate of one set scatters around it, see `Detection.false_alarm_interval`.
"""

from dataclasses import dataclass
from math import floor, sqrt
from typing import Any

import numpy as np

from analysis.results.verdict import Outcome, Verdict
from analysis.stats.detection_scores import Separation, separation

type Array = np.ndarray[Any, Any]

# Probabilities, when all is as promised, of so many false alarms or more, at which a verdict turns.
_WARN, _FAIL = 0.01, 0.001


@dataclass(frozen=True)
class Detection:
    """New data against the scores of calibration data.

    Attributes:
        scores: of the new data, larger for stranger, ``(datum,)``.
        calibration: scores of the calibration data.
        p_values: conformal p-value of each new datum.
        alpha: rate of false alarms that is not to be exceeded.
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

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def flagged(self) -> Array:
        """Data with a p-value of at most `alpha`; boolean, ``(datum,)``. As many false alarms as promised are in it."""
        return self.p_values <= self.alpha

    @property
    def threshold(self) -> float:
        """Score above which a datum is flagged."""
        return float(np.sort(self.calibration)[len(self.calibration) - self._rank])

    @property
    def promised(self) -> float:
        """False-alarm rate over calibration sets where no scores tie: `alpha`, or less by less than 1 / (n + 1)."""
        return self._rank / (len(self.calibration) + 1)

    @property
    def false_alarm_interval(self) -> tuple[float, float]:
        """Where the false-alarm rate of this calibration set lies, central 95 % of a Beta distribution.

        References:
            Vovk 2012, Conditional validity of inductive conformal predictors, sec. 2. arXiv:1209.2673
        """
        from scipy.stats import beta

        low, high = beta.ppf([0.025, 0.975], self._rank, len(self.calibration) + 1 - self._rank)
        return float(low), float(high)

    @property
    def _rank(self) -> int:
        """Number of calibration data at or above the threshold, this one included, plus one for the new datum."""
        return _rank(self.alpha, len(self.calibration))

    def discoveries(self, rate: float = 0.1) -> Array:
        """Data flagged so that the expected share of false alarms among them is at most ``rate``; ``(datum,)``.

        The procedure of Benjamini & Hochberg. It wants independent p-values or positive dependence; conformal ones
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
        return float(self.flagged[normal].mean()), self._alarm_error(int(normal.sum()))

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

    def _alarm_error(self, count: int) -> float:
        # Standard deviation of a beta-binomial share: binomial given a rate that is itself a Beta variable.
        n, rate = len(self.calibration), self.promised
        return sqrt(rate * (1 - rate) * (n + 1 + count) / (count * (n + 2)))

    def _surprise(self, alarms: int, count: int) -> float:
        """Probability of so many alarms or more among normal data."""
        from scipy.stats import betabinom

        return float(betabinom.sf(alarms - 1, count, self._rank, len(self.calibration) + 1 - self._rank))

    def summary(self) -> dict[str, Any]:
        """Figures and their errors, JSON-able."""
        low, high = self.false_alarm_interval
        figures: dict[str, Any] = {
            "score": self.score,
            "alpha": self.alpha,
            "threshold": self.threshold,
            "promised": self.promised,
            "false_alarm_low": low,
            "false_alarm_high": high,
            "n": len(self),
            "n_calibration": len(self.calibration),
            "num_flagged": int(self.flagged.sum()),
        }
        for name, pair in (("false_alarms", self.false_alarms), ("power", self.power)):
            if pair is not None:
                figures |= {name: pair[0], f"{name}_se": pair[1]}
        found = self.separation
        if found is not None:
            figures |= {"auroc": found.auroc, "auroc_se": found.auroc_se}
            figures |= {
                "average_precision": found.average_precision,
                "average_precision_se": found.average_precision_se,
            }
        return figures

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether false alarms are as rare as promised, and whether the score tells anomalies at all."""
        known = self.false_alarms
        normal = np.ones(len(self), dtype=bool) if self.anomalous is None else ~self.anomalous
        count, alarms = int(normal.sum()), int(self.flagged[normal].sum())
        found = []
        if count:
            surprise = self._surprise(alarms, count)
            outcome: Outcome = "pass" if surprise > _WARN else "warn" if known is None or surprise > _FAIL else "fail"
            advice = (
                ""
                if outcome == "pass"
                else "the data are not exchangeable with the calibration data: "
                + (
                    "some are anomalies, or all come from another distribution"
                    if known is None
                    else "calibrate on data that the fit did not see, from where the new data come"
                )
            )
            found.append(
                Verdict(
                    "Are new data flagged more often than normal data would be?"
                    if known is None
                    else "Are false alarms as rare as promised?",
                    alarms / count,
                    self._alarm_error(count),
                    "of the data" if known is None else "of the normal data",
                    f"{self.promised:.3g}, unless by chance (probability {surprise:.2g}, wanted above {_WARN:g})",
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
                    f"Does the score {self.score!r} tell anomalies from normal data?",
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

    def __str__(self) -> str:
        low, high = self.false_alarm_interval
        lines = [
            f"{int(self.flagged.sum()):,} of {len(self):,} data flagged by {self.score!r} above {self.threshold:.4g}, "
            f"against {len(self.calibration):,} calibration data",
            f"  {self.promised:.1%} false alarms promised; with these calibration data {low:.1%} to {high:.1%}",
        ]
        for name, pair in (("false alarms", self.false_alarms), ("anomalies found", self.power)):
            if pair is not None:
                lines.append(f"  {name}: {pair[0]:.1%} ± {pair[1]:.1%}")
        if self.separation is not None:
            lines.append(f"  {self.separation}")
        return "\n".join(lines)


def conformal_p_values(calibration: Array, scores: Array) -> Array:
    """Share of calibration data at least as strange as each new datum, itself counted in.

    Where a new datum is exchangeable with the calibration data, ``P(p <= alpha) <= alpha`` for all alpha and any score.

    Args:
        calibration: scores of data that neither the fit nor the score saw, ``(calibration datum,)``.
        scores: scores of new data, ``(datum,)``; larger is stranger.

    Returns:
        ``(1 + #{calibration >= score}) / (n + 1)``, ``(datum,)``.

    Raises:
        ValueError: no calibration data, or a score that is NaN.

    References:
        Vovk, Gammerman & Shafer 2005, Algorithmic learning in a random world, sec. 2.2.
        Bates et al. 2023, Testing for outliers with conformal p-values, eq. 2. arXiv:2104.08279
    """
    known, new = (np.asarray(values, dtype=np.float64) for values in (calibration, scores))
    if known.ndim != 1 or new.ndim != 1 or len(known) == 0:
        raise ValueError(f"scores of shape (datum,) wanted, and calibration data; got {known.shape} and {new.shape}")
    for name, values in (("calibration", known), ("new", new)):
        if np.isnan(values).any():
            raise ValueError(
                f"{int(np.isnan(values).sum())} {name} scores are NaN, the first is {int(np.isnan(values).argmax())}"
            )
    at_least = len(known) - np.searchsorted(np.sort(known), new, side="left")
    return (1 + at_least) / (len(known) + 1)


def _rank(alpha: float, count: int) -> int:
    """Largest r with ``r / (count + 1) <= alpha`` in floating point, as p-values are compared."""
    rank = floor(alpha * (count + 1)) + 1
    while rank / (count + 1) > alpha:
        rank -= 1
    return rank


def conformal(
    calibration: Array,
    scores: Array,
    *,
    alpha: float = 0.05,
    anomalous: Array | None = None,
    score: str = "score",
    ids: Array | None = None,
) -> Detection:
    """Detect anomalies by any score, of a VAE or not.

    Args:
        calibration: scores of normal data that the fit did not see, ``(calibration datum,)``.
        scores: scores of new data, ``(datum,)``; larger is stranger.
        alpha: rate of false alarms that is not to be exceeded.
        anomalous: which of the new data are known to be anomalies, boolean, ``(datum,)``.
        score: its name.
        ids: of the new data.

    Raises:
        ValueError: fewer than ``1 / alpha - 1`` calibration data, a NaN, or shapes that do not fit.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha}")
    p_values = conformal_p_values(calibration, scores)
    if _rank(alpha, len(calibration)) < 1:
        least = next(n for n in range(floor(1 / alpha) - 2, floor(1 / alpha) + 2) if _rank(alpha, n) >= 1)
        raise ValueError(
            f"alpha={alpha:g} wants at least {least:,} calibration data, got {len(calibration):,}: no p-value could be "
            f"below {1 / (len(calibration) + 1):.3g}; raise alpha or pass more"
        )
    known = None if anomalous is None else np.asarray(anomalous, dtype=bool)
    if known is not None and known.shape != p_values.shape:
        raise ValueError(f"anomalous has shape {known.shape}, the new data {p_values.shape}")
    return Detection(
        scores=np.asarray(scores, dtype=np.float64),
        calibration=np.asarray(calibration, dtype=np.float64),
        p_values=p_values,
        alpha=alpha,
        score=score,
        ids=np.arange(len(p_values)) if ids is None else np.asarray(ids),
        anomalous=known,
    )
