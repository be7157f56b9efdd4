"""Fits in the plane of rate and distortion: slopes between them, fits that another one dominates, and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from scipy.stats import norm

from analysis.results.verdict import Outcome, Verdict
from analysis.stats.information import Bracket
from analysis.stats.rate_distortion import ratio_of_means
from vae_pyro.core.means import mean_and_error

type Array = np.ndarray[Any, Any]

# Error rate of a verdict, over all comparisons that it rests on together.
ALPHA = 0.01


@dataclass(frozen=True, repr=False)
class RatePoint:
    """Rate and distortion of one fit for each datum, in nats.

    Attributes:
        label: label of the fit.
        beta: weight of the KL that it was fitted with; ``None`` where its objective has no such weight, or where the
            fit ended before the weight was reached.
        rate: KL(q(z | x) || p(z)) from draws, ``(datum,)``, with ``rate_mcse``, its Monte Carlo standard error.
        distortion: -E_q log p(x | z), ``(datum,)``, with ``distortion_mcse``.
        information: bracket on I(x; z); ``None`` where it was not estimated.
    """

    label: str
    beta: float | None
    rate: Array
    rate_mcse: Array
    distortion: Array
    distortion_mcse: Array
    information: Bracket | None = None

    def __len__(self) -> int:
        return len(self.rate)

    def mean(self, weight_rate: float, weight_distortion: float) -> tuple[float, float]:
        """Mean over data of a combination of rate and distortion, and its standard error for other data and draws."""
        return mean_and_error(weight_rate * self.rate + weight_distortion * self.distortion)

    def mcse(self, name: str) -> float:
        """Monte Carlo standard error of the mean ``rate`` or ``distortion`` of these data."""
        return float(np.sqrt((getattr(self, f"{name}_mcse") ** 2).sum()) / len(self))

    def __repr__(self) -> str:
        beta = "" if self.beta is None else f", beta={self.beta:g}"
        return f"RatePoint({self.label!r}{beta}, rate={self.rate.mean():.4g}, distortion={self.distortion.mean():.4g})"


@dataclass(frozen=True)
class Secant:
    """Slope of the curve between two fits that are neighbours in beta, each the best of its own (least D + beta R).

    Attributes:
        first: label of the fit with the smaller beta.
        second: label of the fit with the larger beta.
        beta: -(change of D) / (change of R), which lies between the two betas where both fits are optimal; with
            ``beta_se``, its standard error for other data and draws. NaN where the rates are the same.
        low: the smaller beta.
        high: the larger beta.
    """

    first: str
    second: str
    beta: float
    beta_se: float
    low: float
    high: float


@dataclass(frozen=True)
class Dominated:
    """A fit that another one beats at its own objective.

    Attributes:
        label: label of the fit.
        by: label of the other fit.
        nats: excess of its D + beta R over that of the other, per datum, with ``se``, paired by datum.
        significant: whether the excess is significant, corrected for all pairs of fits.
    """

    label: str
    by: str
    nats: float
    se: float
    significant: bool


def secants(points: Sequence[RatePoint]) -> tuple[Secant, ...]:
    """Between neighbours in beta, the best of each beta's fits; dR/dD = -1/beta along the optimal curve."""
    best: dict[float, RatePoint] = {}
    for point in points:
        beta = point.beta
        # Fits that are not the best of their beta do not lie on the curve.
        if beta is not None and (beta not in best or point.mean(beta, 1)[0] < best[beta].mean(beta, 1)[0]):
            best[beta] = point
    found = []
    for low, high in pairwise(sorted(best)):
        first, second = best[low], best[high]
        beta, error = ratio_of_means(second.distortion - first.distortion, first.rate - second.rate)
        found.append(Secant(first.label, second.label, beta, error, low, high))
    return tuple(found)


def dominated(points: Sequence[RatePoint]) -> tuple[Dominated, ...]:
    """Each fit whose D + beta R is larger than that of another fit, with the one that beats it most clearly."""
    pairs = max(sum(point.beta is not None for point in points) * (len(points) - 1), 1)
    critical = float(norm.isf(ALPHA / pairs))
    found = []
    for point in points:
        if point.beta is None:
            continue
        worst: Dominated | None = None
        for other in points:
            nats, se = mean_and_error(point.distortion - other.distortion + point.beta * (point.rate - other.rate))
            if other is not point and nats > 0 and (worst is None or nats * worst.se > worst.nats * se):
                worst = Dominated(point.label, other.label, nats, se, bool(nats > critical * se))
        if worst is not None:
            found.append(worst)
    return tuple(found)


def bound_verdict(name: str, question: str, excess: Sequence[tuple[float, float]], advice: str) -> Verdict:
    """Fails where the least excess is significantly below zero, corrected for the number of fits."""
    limit = float(norm.isf(ALPHA / len(excess)))

    def upper(one: tuple[float, float]) -> float:
        return one[0] + limit * (one[1] if isfinite(one[1]) else 0.0)

    value, error = min(excess, key=upper)
    outcome: Outcome = "fail" if upper((value, error)) < 0 else "pass"
    return Verdict(
        question,
        value,
        error if isfinite(error) else None,
        "nats per datum above it",
        f"at least 0 minus {limit:.2g} standard errors",
        "Alemi et al. 2018, sec. 2.3, arXiv:1711.00464; false alarms at most 1 % over all fits",
        outcome,
        advice if outcome == "fail" else "",
        name,
    )


def optimality_verdict(found: Sequence[Dominated]) -> Verdict:
    """Warns where a fit is significantly dominated."""
    significant = [one for one in found if one.significant]
    worst = max(significant, key=lambda one: one.nats, default=None)
    return Verdict(
        "Is each fit the best of the curve at its own beta?",
        0.0 if worst is None else worst.nats,
        None if worst is None else worst.se,
        "nats per datum",
        f"no fit with a significantly larger D + beta R than another, at {ALPHA:.0%} over all pairs",
        "definition: a beta-VAE minimises D + beta R",
        "warn" if significant else "pass",
        ""
        if worst is None
        else f"{worst.label} is dominated by {worst.by}: fit it longer, from the weights of the other, or with a "
        "warm-up of the KL; on held-out data it may also be overfitted",
        "best_of_beta",
    )
