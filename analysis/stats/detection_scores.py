"""How well scores separate two kinds of data: AUROC and average precision, each with its standard error."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Separation:
    """How well a score separates anomalies from normal data, over all thresholds.

    Attributes:
        auroc: probability that an anomaly scores above a normal datum, ties counted half.
        auroc_se: its standard error, never below that of half a datum.
        average_precision: share of anomalies among what is flagged, averaged over thresholds that flag each anomaly;
            `prevalence` by chance.
        average_precision_se: likewise.
        prevalence: share of anomalies in these data.
    """

    auroc: float
    auroc_se: float
    average_precision: float
    average_precision_se: float
    prevalence: float

    def __str__(self) -> str:
        return (
            f"AUROC {self.auroc:.3f} ± {self.auroc_se:.3f} (chance 0.5), average precision "
            f"{self.average_precision:.3f} ± {self.average_precision_se:.3f} (chance {self.prevalence:.3f})"
        )


def separation(normal: Array, anomalous: Array) -> Separation:
    """AUROC and average precision of scores, with standard errors over both samples.

    Args:
        normal: scores of normal data, at least 2.
        anomalous: scores of anomalies, at least 2; larger is stranger.

    Raises:
        ValueError: fewer than 2 of either, or a NaN.

    References:
        DeLong, DeLong & Clarke-Pearson 1988, Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 44. doi:10.2307/2531595
        Efron 1982, The jackknife, the bootstrap and other resampling plans, ch. 6 (the infinitesimal jackknife, for the
        average precision).
    """
    low, high = (np.asarray(values, dtype=np.float64) for values in (normal, anomalous))
    if min(len(low), len(high)) < 2 or np.isnan(low).any() or np.isnan(high).any():
        raise ValueError(f"at least 2 scores of either kind required, none NaN; got {len(low)} and {len(high)}")
    least = 0.5 / min(len(low), len(high))
    above = _placement(low, high)
    error = sqrt(above.var(ddof=1) / len(high) + _placement(high, low).var(ddof=1) / len(low))
    precision, slopes = _average_precision(low, high)
    return Separation(
        auroc=float(above.mean()),
        auroc_se=max(error, least),
        average_precision=precision,
        average_precision_se=max(slopes, 0.5 / len(high)),
        prevalence=len(high) / (len(high) + len(low)),
    )


def _placement(of: Array, among: Array) -> Array:
    """Share of ``of`` below each of ``among``, ties counted half."""
    ordered = np.sort(of)
    below, up_to = (np.searchsorted(ordered, among, side=side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(of))


def _average_precision(normal: Array, anomalous: Array) -> tuple[float, float]:
    """Mean over anomalies of the precision at their score, and its infinitesimal-jackknife standard error."""
    anomalies, others = np.sort(anomalous), np.sort(normal)
    hits = len(anomalies) - np.searchsorted(anomalies, anomalies, side="left")
    misses = len(others) - np.searchsorted(others, anomalies, side="left")
    precision = hits / (hits + misses)
    mean = float(precision.mean())
    # What one more of a datum's weight adds: to its own term, and to the terms of every anomaly that scores no higher.
    gain = np.concatenate([[0.0], np.cumsum(misses / (hits + misses) ** 2)])
    loss = np.concatenate([[0.0], np.cumsum(hits / (hits + misses) ** 2)])
    of_anomaly = precision - mean + gain[np.searchsorted(anomalies, anomalies, side="right")]
    of_other = -loss[np.searchsorted(anomalies, others, side="right")]
    variance = sum(float(((slope - slope.mean()) ** 2).sum()) for slope in (of_anomaly, of_other))
    return mean, sqrt(variance) / len(anomalies)
