"""Runs of an experiment: grouped into variants, paired by their seeds, and their differences."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.experiments.held_out import HeldOut
from analysis.results.estimate import plus_minus
from analysis.stats.crossed import CrossedMean, crossed_mean
from analysis.stats.multiplicity import holm
from analysis.stats.planning import LEVEL

if TYPE_CHECKING:
    from analysis.posterior.gaps.result import InferenceGaps


@dataclass(frozen=True)
class Gaps:
    """The parts of the inference gap of one run, means over data in nats, each with its Monte Carlo standard error."""

    approximation: float
    approximation_se: float
    amortization: float
    amortization_se: float

    @classmethod
    def of(cls, gaps: "InferenceGaps") -> "Gaps":
        """From `analysis.inference_gaps`."""
        return cls(*gaps.average("approximation")[:2], *gaps.average("amortization")[:2])


@dataclass(frozen=True)
class Measured:
    """One run of an experiment.

    Attributes:
        label: of its variant, the same for all seeds.
        objective: that it was fitted with, such as ``iwae:num_particles=5``.
        grid: settings that differ between variants of one objective; JSON-able.
        seed: of the fit. Runs of different variants with the same seed are paired.
        held_out: what it predicts.
        gaps: parts of its inference gap, where they were estimated.
    """

    label: str
    objective: str
    grid: Mapping[str, Any]
    seed: int
    held_out: HeldOut
    gaps: Gaps | None = None


@dataclass(frozen=True)
class Difference:
    """Mean log p(x) of ``first`` less that of ``second``, nats per datum.

    Attributes:
        first: label of a variant; likewise ``second``.
        mean: the difference with both sources of error.
        p_adjusted: its p-value after Holm's correction over the comparisons that it is one of.
        family: number of these: all pairs of variants, or all differences from the baseline.
        settled: whether more draws would leave the variant that is behind there, see `ExperimentComparison.settled`.
    """

    first: str
    second: str
    mean: CrossedMean
    p_adjusted: float
    family: int
    settled: bool

    @property
    def told_apart(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_adjusted < LEVEL

    def reversed(self) -> "Difference":
        """``second`` less ``first``."""
        mean = replace(self.mean, estimate=-self.mean.estimate)
        return replace(self, first=self.second, second=self.first, mean=mean)

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        about = {"first": self.first, "second": self.second, **self.mean.summary()}
        return {
            **about,
            "p_adjusted": self.p_adjusted,
            "family": self.family,
            "told_apart": self.told_apart,
            "settled": self.settled,
        }

    def __str__(self) -> str:
        return f"{plus_minus(self.mean.estimate, self.mean.se)} nats per datum ({self.interval})"

    @property
    def interval(self) -> str:
        """Interval of this difference alone and corrected p-value, in words."""
        low, high = self.mean.interval()
        p = "p < 0.001" if self.p_adjusted < 0.001 else f"p = {self.p_adjusted:.3f}"
        ends = (plus_minus(end, self.mean.se).split(" ±")[0] for end in (low, high))  # as many digits as the error has
        return f"95 % interval {' to '.join(ends)}, {p}" + (
            f" corrected for {self.family} comparisons" if self.family > 1 else ""
        )


def grouped(measured: Sequence[Measured]) -> dict[str, dict[int, Measured]]:
    """Runs by variant and seed.

    Raises:
        ValueError: no runs, a run twice, or a label that means two variants.
    """
    if not measured:
        raise ValueError("no run was measured; a comparison wants at least one run of each variant")
    variants: dict[str, dict[int, Measured]] = {}
    for run in measured:
        seeds = variants.setdefault(run.label, {})
        if run.seed in seeds:
            raise ValueError(f"{run.label!r} has seed {run.seed} twice; give every run of a variant another seed")
        same = next(iter(seeds.values()), run)
        if (same.objective, canonical(same.grid)) != (run.objective, canonical(run.grid)):
            raise ValueError(
                f"the label {run.label!r} means two variants, {same.objective} {dict(same.grid)} and {run.objective} "
                f"{dict(run.grid)}; give them different labels"
            )
        seeds[run.seed] = run
    return variants


def require_finite(measured: Sequence[Measured]) -> None:
    """Refuse estimates that are no numbers: dropping such a run would compare those that survived.

    Raises:
        ValueError: naming variant, seed and datum.
    """
    for run in measured:
        for name in ("log_px", "elbo"):
            bad = np.flatnonzero(~np.isfinite(getattr(run.held_out, name)))
            if len(bad):
                value, datum = getattr(run.held_out, name)[bad[0]], run.held_out.ids[bad[0]]
                raise ValueError(
                    f"{name} of {run.label!r}, seed {run.seed}, is {value} for {len(bad):,} of {len(run.held_out):,} "
                    f"data, the first with id {datum}: that fit has diverged or denies the datum; fit it anew, or "
                    "leave the variant out"
                )


def baseline_of(measured: Sequence[Measured], variants: Mapping[str, Any], baseline: str | None) -> Measured:
    """The first run of the variant that others are compared with.

    Raises:
        ValueError: an unknown name.
    """
    if baseline is None:
        return measured[0]
    if baseline in variants:
        return next(iter(variants[baseline].values()))
    for run in measured:
        if run.objective == baseline:
            return run
    raise ValueError(f"the baseline {baseline!r} is no variant and no objective; choose from {', '.join(variants)}")


def paired(variants: Mapping[str, Mapping[int, Measured]]) -> tuple[dict[str, list[Measured]], list[str]]:
    """Runs of each variant in the order in which they are paired, and what is to be said about it."""
    common = sorted(set.intersection(*(set(seeds) for seeds in variants.values())))
    notes = []
    if common:
        chosen = {label: [seeds[seed] for seed in common] for label, seeds in variants.items()}
        rule = (
            f"only seed{'s' * (len(common) > 1)} {_numbers(common)} {'are' if len(common) > 1 else 'is'} shared by all"
        )
    else:
        count = min(len(seeds) for seeds in variants.values())
        chosen = {label: [seeds[seed] for seed in sorted(seeds)[:count]] for label, seeds in variants.items()}
        notes.append("No seed is shared by all variants: fits are paired in order of their seeds, as independent ones.")
        rule = f"every variant keeps {count}"
    left = {label: sorted(set(seeds) - {run.seed for run in chosen[label]}) for label, seeds in variants.items()}
    left = {label: seeds for label, seeds in left.items() if seeds}
    if left:
        what = "; ".join(f"{label}: seed{'s' * (len(seeds) > 1)} {_numbers(seeds)}" for label, seeds in left.items())
        notes.append(f"Runs left out, since {rule}: {what}. Fit the missing seeds to use them.")
    return chosen, notes


def reference_of(run: Measured, base: Measured, chosen: Mapping[str, Sequence[Measured]]) -> str | None:
    """Label of the variant that a run's is compared with: the baseline's objective at the same grid; perhaps none."""
    if run.label == base.label:
        return None
    if run.objective == base.objective:
        alone = all(runs[0].objective == base.objective for runs in chosen.values())
        same = canonical(run.grid) == canonical(base.grid)  # the same variant under two labels
        return base.label if alone or same else None
    for label, runs in chosen.items():
        if runs[0].objective == base.objective and canonical(runs[0].grid) == canonical(run.grid):
            return label
    return base.label


def all_pairs(labels: Sequence[str], chosen: Mapping[str, Sequence[Measured]]) -> tuple[Difference, ...]:
    """Every variant less every later one, corrected for being so many."""
    found = []
    for first, second in combinations(labels, 2):
        ours, theirs = chosen[first], chosen[second]
        values = np.stack([a.held_out.log_px - b.held_out.log_px for a, b in zip(ours, theirs, strict=True)])
        errors = np.stack(
            [a.held_out.log_px_mcse**2 + b.held_out.log_px_mcse**2 for a, b in zip(ours, theirs, strict=True)]
        )
        mean = crossed_mean(values, errors if np.isfinite(errors).all() else None)
        settled = _settled(mean, [run.held_out for run in ours], [run.held_out for run in theirs])
        found.append(Difference(first, second, mean, nan, 1, settled))
    return corrected(found)


def corrected(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """The same differences, corrected for being so many."""
    adjusted = holm(np.array([pair.mean.p_value for pair in found]))
    return tuple(replace(pair, p_adjusted=float(p), family=len(found)) for pair, p in zip(found, adjusted, strict=True))


def _settled(mean: CrossedMean, best: Sequence[HeldOut], other: Sequence[HeldOut]) -> bool:
    """Whether more draws would leave the other variant behind, as `settled` has it.

    The better variant can only rise. The other's estimates are trusted where their k-hat is, or bounded by their CUBO.
    """
    missing = float(np.mean([run.rise.mean() for run in other]))
    small = missing <= max((mean.estimate - 2 * mean.se) / 2, mean.se / 3)
    if all(run.elpd.trusted for run in other) and small:
        return True
    above = float(np.mean([run.upper.mean() for run in other])) < float(np.mean([run.log_px.mean() for run in best]))
    return above and all(run.elpd.bounded for run in other)


def canonical(grid: Mapping[str, Any]) -> str:
    """A point of the grid as one text, the same for the same settings."""
    return json.dumps(dict(grid), sort_keys=True, default=str, ensure_ascii=False)


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
