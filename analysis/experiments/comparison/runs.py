"""Measured runs of an experiment: grouped into variants and paired by their seeds, each with its baseline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.experiments.held_out import HeldOut

if TYPE_CHECKING:
    from analysis.posterior.gaps.result import InferenceGaps


@dataclass(frozen=True)
class Gaps:
    """Parts of the inference gap of one run: means over data in nats, each with its Monte Carlo standard error."""

    approximation: float
    approximation_se: float
    amortization: float
    amortization_se: float

    @classmethod
    def of(cls, gaps: "InferenceGaps") -> "Gaps":
        """From `analysis.inference_gaps`."""
        return cls(*gaps.average("approximation")[:2], *gaps.average("amortization")[:2])


@dataclass(frozen=True)
class MeasuredRun:
    """One run of an experiment with its held-out results.

    Attributes:
        label: label of its variant, the same for all seeds.
        objective: objective that was maximised, such as ``iwae:num_particles=5``.
        grid: settings that differ between variants of one objective; JSON-able.
        seed: seed of the fit. Runs of different variants with the same seed are paired.
        held_out: results on the test data.
        gaps: parts of its inference gap, where they were estimated.
    """

    label: str
    objective: str
    grid: Mapping[str, Any]
    seed: int
    held_out: HeldOut
    gaps: Gaps | None = None


def grouped(measured: Sequence[MeasuredRun]) -> dict[str, dict[int, MeasuredRun]]:
    """Runs by variant and seed.

    Raises:
        ValueError: no runs, a run twice, or one label for two variants.
    """
    if not measured:
        raise ValueError("no run was measured; pass at least one run of each variant")
    variants: dict[str, dict[int, MeasuredRun]] = {}
    for run in measured:
        seeds = variants.setdefault(run.label, {})
        if run.seed in seeds:
            raise ValueError(f"{run.label!r} has seed {run.seed} twice; give every run of a variant another seed")
        same = next(iter(seeds.values()), run)
        if (same.objective, canonical(same.grid)) != (run.objective, canonical(run.grid)):
            raise ValueError(
                f"the label {run.label!r} names two variants, {same.objective} {dict(same.grid)} and {run.objective} "
                f"{dict(run.grid)}; give them different labels"
            )
        seeds[run.seed] = run
    return variants


def require_finite(measured: Sequence[MeasuredRun]) -> None:
    """Refuse estimates that are not finite: dropping such a run would bias the comparison towards the survivors.

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
                    f"data, the first with id {datum}: the fit diverged or gives the datum no probability; fit it "
                    "again, or leave the variant out"
                )


def baseline_of(measured: Sequence[MeasuredRun], variants: Mapping[str, Any], baseline: str | None) -> MeasuredRun:
    """The first run of the variant that others are compared with.

    Raises:
        ValueError: an unknown name.
    """
    if baseline is None:
        return measured[0]
    if baseline in variants:
        run: MeasuredRun = next(iter(variants[baseline].values()))
        return run
    for run in measured:
        if run.objective == baseline:
            return run
    raise ValueError(f"the baseline {baseline!r} is not a variant or objective; choose from {', '.join(variants)}")


def paired(variants: Mapping[str, Mapping[int, MeasuredRun]]) -> tuple[dict[str, list[MeasuredRun]], list[str]]:
    """Runs of each variant in the order in which they are paired, and notes on what was left out."""
    common = sorted(set.intersection(*(set(seeds) for seeds in variants.values())))
    notes = []
    if common:
        chosen = {label: [seeds[seed] for seed in common] for label, seeds in variants.items()}
        rule = f"only {_seeds(common)} {'are' if len(common) > 1 else 'is'} shared by all"
    else:
        count = min(len(seeds) for seeds in variants.values())
        chosen = {label: [seeds[seed] for seed in sorted(seeds)[:count]] for label, seeds in variants.items()}
        notes.append("No seed is shared by all variants: fits are independent and paired in the order of their seeds.")
        rule = f"every variant keeps {count}"
    left = {label: sorted(set(seeds) - {run.seed for run in chosen[label]}) for label, seeds in variants.items()}
    if any(left.values()):
        listed = "; ".join(f"{label}: {_seeds(seeds)}" for label, seeds in left.items() if seeds)
        notes.append(f"Runs left out, since {rule}: {listed}. Fit the missing seeds to use them.")
    return chosen, notes


def reference_of(run: MeasuredRun, base: MeasuredRun, chosen: Mapping[str, Sequence[MeasuredRun]]) -> str | None:
    """Label of the variant that a run's variant is compared with: the baseline's objective at the same grid point.

    The baseline itself where there is no such variant; ``None`` for a variant that is a baseline.
    """
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


def canonical(grid: Mapping[str, Any]) -> str:
    """A grid point as text that is the same for the same settings."""
    return json.dumps(dict(grid), sort_keys=True, default=str, ensure_ascii=False)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
