"""Estimates for each variant of an experiment: by run, averaged over seeds, and of mean log p(x) with both errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan, sqrt
from typing import Any

import numpy as np

from analysis.experiments.comparison.runs import Gaps, MeasuredRun
from analysis.experiments.held_out import HeldOut
from analysis.latent.similarity import Agreement, agreement
from analysis.stats.crossed import CrossedMean, crossed_mean

type Array = np.ndarray[Any, Any]

_GAPS = ("approximation", "amortization")
# A latent whose mean KL is below this carries no information, nats.
_INFORMATIVE = 0.01
# Fewest data that `analysis.latent.similarity.agreement` accepts.
_MIN_AGREEMENT_DATA = 4


@dataclass(frozen=True, repr=False)
class VariantEstimates:
    """Held-out results of several variants, each fitted with the same number of seeds, on the same test data.

    Attributes:
        labels: of the variants, the highest mean log p(x) first.
        objectives: objective of each variant.
        grids: settings of each variant that differ between variants of one objective.
        seeds: ``(variant, seed)``; runs in one column are paired.
        held_out: results of the runs, by variant and seed.
        gaps: parts of the inference gap of the runs, ``None`` where they were not estimated.
        agreements: agreement of the latent spaces of the seeds of each variant; ``None`` with one seed.
    """

    labels: tuple[str, ...]
    objectives: tuple[str, ...]
    grids: tuple[Mapping[str, Any], ...]
    seeds: Array
    held_out: tuple[tuple[HeldOut, ...], ...]
    gaps: tuple[tuple[Gaps | None, ...], ...]
    agreements: tuple[Agreement | None, ...]

    @classmethod
    def of(cls, chosen: Mapping[str, Sequence[MeasuredRun]]) -> "VariantEstimates":
        """From the runs of each variant, in the order in which they are paired."""
        means = {label: float(np.mean([run.held_out.log_px.mean() for run in runs])) for label, runs in chosen.items()}
        labels = sorted(chosen, key=lambda label: -means[label])  # stable: of equal means the first given comes first
        return cls(
            labels=tuple(labels),
            objectives=tuple(chosen[label][0].objective for label in labels),
            grids=tuple(dict(chosen[label][0].grid) for label in labels),
            seeds=np.array([[run.seed for run in chosen[label]] for label in labels]),
            held_out=tuple(tuple(run.held_out for run in chosen[label]) for label in labels),
            gaps=tuple(tuple(run.gaps for run in chosen[label]) for label in labels),
            agreements=tuple(_agreement([run.held_out for run in chosen[label]]) for label in labels),
        )

    @property
    def first(self) -> HeldOut:
        """One of the results, for what all of them share: data, number of draws, measure."""
        return self.held_out[0][0]

    @property
    def num_seeds(self) -> int:
        """Seeds of each variant."""
        return int(self.seeds.shape[1])

    @property
    def num_data(self) -> int:
        """Number of test data."""
        return len(self.first)

    @property
    def num_draws(self) -> int:
        """K, draws of the guide for each datum."""
        return self.first.num_draws

    @property
    def good_k(self) -> float:
        """Threshold of k-hat below which an estimate of log p(x) is reliable."""
        return self.first.elpd.good_k

    def pointwise(self, name: str) -> Array:
        """A result of each datum, such as ``log_px``, ``(variant, seed, datum)``."""
        return np.array([[getattr(run, name) for run in runs] for runs in self.held_out])

    @cached_property
    def runs(self) -> dict[str, Array]:
        """Estimates of each run, ``(variant, seed)``: means over data in nats, a count, a share, and seconds."""

        def each(estimate: Callable[[HeldOut], Any]) -> Array:
            return np.array([[estimate(run) for run in runs] for runs in self.held_out], dtype=np.float64)

        estimates = {
            "log_px": each(lambda run: run.log_px.mean()),
            "elbo": each(lambda run: run.elbo.mean()),
            "kl": each(lambda run: run.kl.mean()),
            "gap": each(lambda run: run.log_px.mean() - run.elbo.mean()),
            "active_units": each(lambda run: run.active.sum()),
            "share_bad": each(lambda run: run.share_bad),
            "seconds": each(lambda run: run.seconds),
        }
        if all(gaps is not None for row in self.gaps for gaps in row):
            estimates |= {
                name: np.array([[getattr(gaps, name) for gaps in row] for row in self.gaps]) for name in _GAPS
            }
        return estimates

    def mean(self, name: str) -> tuple[Array, Array]:
        """Mean over seeds of an estimate of `runs` and its standard error, each ``(variant,)``; NaN with one seed."""
        values = self.runs[name]
        count = values.shape[1]
        error = values.std(1, ddof=1) / sqrt(count) if count > 1 else np.full(len(values), nan)
        return values.mean(1), error

    @cached_property
    def levels(self) -> tuple[CrossedMean, ...]:
        """Mean log p(x) of each variant with both sources of error; comparisons use paired differences instead."""
        log_px, mcse = self.pointwise("log_px"), self.pointwise("log_px_mcse")
        known = np.isfinite(mcse).all()
        return tuple(
            crossed_mean(values, error**2 if known else None) for values, error in zip(log_px, mcse, strict=True)
        )

    @property
    def lower_bounds(self) -> tuple[str, ...]:
        """Variants with a run whose k-hat is too large for more than a tenth of the data."""
        return tuple(
            label
            for label, runs in zip(self.labels, self.held_out, strict=True)
            if not all(run.elpd.trusted for run in runs)
        )


def _agreement(runs: Sequence[HeldOut]) -> Agreement | None:
    if len(runs) < 2 or len(runs[0]) < _MIN_AGREEMENT_DATA:
        return None
    active = [run.code_kl > _INFORMATIVE if np.isfinite(run.code_kl).all() else run.active for run in runs]
    return agreement([run.codes for run in runs], active)
