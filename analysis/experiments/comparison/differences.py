"""Differences of mean log p(x) between variants, with both sources of error and adjusted p-values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import nan
from typing import Any

import numpy as np

from analysis.experiments.comparison.runs import MeasuredRun
from analysis.experiments.held_out import HeldOut
from analysis.results.estimate import plus_minus
from analysis.stats.crossed import CrossedMean, crossed_mean
from analysis.stats.multiplicity import holm
from analysis.stats.power import ALPHA


@dataclass(frozen=True)
class Difference:
    """Mean log p(x) of ``first`` minus that of ``second``, nats per datum.

    Attributes:
        first: label of a variant.
        second: label of the variant that it is compared with.
        mean: the difference with both sources of error.
        p_adjusted: its p-value after Holm's correction for all comparisons of its family.
        family: number of comparisons in the family: all pairs of variants, or all differences from the baseline.
        settled: whether the bias of log p(x) is too small to reverse the order, see `analysis.density.comparison`.
    """

    first: str
    second: str
    mean: CrossedMean
    p_adjusted: float
    family: int
    settled: bool

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.p_adjusted < ALPHA

    def reversed(self) -> "Difference":
        """``second`` minus ``first``."""
        mean = replace(self.mean, estimate=-self.mean.estimate)
        return replace(self, first=self.second, second=self.first, mean=mean)

    def summary(self) -> dict[str, Any]:
        """JSON-able; the key ``told_apart``, which files of earlier versions have too, is `significant`."""
        about = {"first": self.first, "second": self.second, **self.mean.summary()}
        return {
            **about,
            "p_adjusted": self.p_adjusted,
            "family": self.family,
            "told_apart": self.significant,
            "settled": self.settled,
        }

    def __str__(self) -> str:
        p = "p < 0.001" if self.p_adjusted < 0.001 else f"p = {self.p_adjusted:.3f}"
        adjusted = f", adjusted for {self.family} comparisons" if self.family > 1 else ""
        return (
            f"{plus_minus(self.mean.estimate, self.mean.se)} nats per datum (95 % interval {interval_text(self.mean)}, "
            f"{p}{adjusted})"
        )


def interval_text(mean: CrossedMean, between: str = " to ") -> str:
    """The 95 % interval, with as many digits as the standard error has."""
    return between.join(plus_minus(end, mean.se).split(" ±")[0] for end in mean.interval())


def all_pairs(labels: Sequence[str], chosen: Mapping[str, Sequence[MeasuredRun]]) -> tuple[Difference, ...]:
    """Every variant minus every later one, adjusted as one family."""
    found = []
    for first, second in combinations(labels, 2):
        runs = [(a.held_out, b.held_out) for a, b in zip(chosen[first], chosen[second], strict=True)]
        values = np.stack([a.log_px - b.log_px for a, b in runs])
        variance = np.stack([a.log_px_mcse**2 + b.log_px_mcse**2 for a, b in runs])
        mean = crossed_mean(values, variance if np.isfinite(variance).all() else None)
        found.append(Difference(first, second, mean, nan, 1, _settled(mean, *zip(*runs, strict=True))))
    return adjusted(found)


def adjusted(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """The same differences, their p-values adjusted as one family."""
    p_values = holm(np.array([pair.mean.p_value for pair in differences]))
    return tuple(
        replace(pair, p_adjusted=float(p), family=len(differences))
        for pair, p in zip(differences, p_values, strict=True)
    )


def _settled(mean: CrossedMean, best: Sequence[HeldOut], other: Sequence[HeldOut]) -> bool:
    """Whether more draws would leave the other variant behind.

    The estimate of the better variant can only rise. That of the other is reliable where its k-hat is good and its
    first-order bias is small, or bounded by its CUBO.
    """
    bias = float(np.mean([run.rise.mean() for run in other]))
    small = bias <= max((mean.estimate - 2 * mean.se) / 2, mean.se / 3)
    if all(run.elpd.trusted for run in other) and small:
        return True
    above = float(np.mean([run.upper.mean() for run in other])) < float(np.mean([run.log_px.mean() for run in best]))
    return above and all(run.elpd.bounded for run in other)
