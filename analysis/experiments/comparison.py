"""Which objective predicts best, by how much, and can the data tell? Several variants, several seeds, one test set.

Two things were drawn at random: the seeds of the fits and the test data. A difference of two variants is measured once
for each pair of a seed and a datum, and `analysis.stats.crossed` keeps both sources of error apart. p-values are
corrected over all pairs of variants at once, so that a page that compares ten variants does not find a winner by their
number.
"""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan, sqrt
from typing import Any

import numpy as np
import xarray as xr

from analysis.density.comparison import require_comparable
from analysis.experiments.held_out import HeldOut
from analysis.experiments.variants import (
    Difference,
    Gaps,
    Measured,
    all_pairs,
    baseline_of,
    canonical,
    corrected,
    grouped,
    paired,
    reference_of,
    require_finite,
)
from analysis.latent.similarity import Agreement, agreement
from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.crossed import CrossedMean, crossed_mean
from analysis.stats.planning import LEVEL, counted, what_would_help

__all__ = ["Difference", "ExperimentComparison", "Gaps", "Measured", "compare_variants"]

type Array = np.ndarray[Any, Any]

# Figures of a run that a table has, in its order; those of gaps only where every run has them.
FIGURES = ("log_px", "elbo", "kl", "gap", "active_units", "share_bad", "seconds")
GAP_FIGURES = ("approximation", "amortization")
# A latent whose mean KL is below this carries nothing, nats.
_INFORMATIVE = 0.01
_WIDTH = 120
# `analysis.latent.similarity` wants as many data.
_LEAST_AGREEING = 4


@dataclass(frozen=True)
class ExperimentComparison:
    """Variants on the same test data, the one of the highest mean log p(x) first; all in nats per datum.

    Attributes:
        labels: of the variants.
        objectives: likewise.
        grids: likewise.
        seeds: numbers of the seeds, ``(variant, seed)``; runs in one column are paired.
        held_out: results, by variant and seed.
        gaps: likewise, ``None`` where they were not estimated.
        references: of each variant the label that it is compared with, ``None`` for what is a baseline itself.
        pairs: all pairs; the first of each is the one that stands first in ``labels``.
        agreements: how far the latent spaces of a variant's seeds agree, ``None`` with one seed.
        notes: what was left out and why, in sentences.
    """

    labels: tuple[str, ...]
    objectives: tuple[str, ...]
    grids: tuple[Mapping[str, Any], ...]
    seeds: Array
    held_out: tuple[tuple[HeldOut, ...], ...]
    gaps: tuple[tuple[Gaps | None, ...], ...]
    references: tuple[str | None, ...]
    pairs: tuple[Difference, ...]
    agreements: tuple[Agreement | None, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def num_seeds(self) -> int:
        """Seeds of each variant."""
        return int(self.seeds.shape[1])

    @property
    def num_data(self) -> int:
        """Test data."""
        return len(self.held_out[0][0])

    @property
    def num_draws(self) -> int:
        """K, draws of the guide for each datum."""
        return self.held_out[0][0].num_draws

    @property
    def good_k(self) -> float:
        """k-hat below which an estimate of log p(x) can be trusted."""
        return self.held_out[0][0].elpd.good_k

    def pointwise(self, name: str) -> Array:
        """A figure of each datum, such as ``log_px``, ``(variant, seed, datum)``."""
        return np.array([[getattr(run, name) for run in runs] for runs in self.held_out])

    @cached_property
    def runs(self) -> dict[str, Array]:
        """Figures of each run, ``(variant, seed)``: means over data in nats, a count, a share, and seconds."""

        def each(figure: Any) -> Array:
            return np.array([[figure(run) for run in runs] for runs in self.held_out], dtype=np.float64)

        figures = {
            "log_px": each(lambda run: run.log_px.mean()),
            "elbo": each(lambda run: run.elbo.mean()),
            "kl": each(lambda run: run.kl.mean()),
            "gap": each(lambda run: run.log_px.mean() - run.elbo.mean()),
            "active_units": each(lambda run: run.active.sum()),
            "share_bad": each(lambda run: run.share_bad),
            "seconds": each(lambda run: run.seconds),
        }
        if all(gaps is not None for row in self.gaps for gaps in row):
            figures |= {name: np.array([[getattr(g, name) for g in row] for row in self.gaps]) for name in GAP_FIGURES}
        return figures

    def mean(self, name: str) -> tuple[Array, Array]:
        """Mean over seeds of a figure of `runs` and its standard error, each ``(variant,)``; NaN with one seed."""
        values = self.runs[name]
        count = values.shape[1]
        error = values.std(1, ddof=1) / sqrt(count) if count > 1 else np.full(len(values), nan)
        return values.mean(1), error

    @cached_property
    def levels(self) -> tuple[CrossedMean, ...]:
        """Mean log p(x) of each variant with both sources of error; not for comparing, which wants pairs."""
        log_px, mcse = self.pointwise("log_px"), self.pointwise("log_px_mcse")
        known = np.isfinite(mcse).all()
        return tuple(
            crossed_mean(values, error**2 if known else None) for values, error in zip(log_px, mcse, strict=True)
        )

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Each variant less the baseline that it is compared with, in the order of ``labels``.

        These comparisons were planned before the results were seen, and are corrected as a family of their own; which
        variants are the best pair is seen afterwards, and ``pairs`` are corrected for all of them.
        """
        return corrected(
            [
                self.difference(label, reference)
                for label, reference in zip(self.labels, self.references, strict=True)
                if reference is not None
            ]
        )

    def difference(self, first: str, second: str) -> Difference:
        """One variant less another.

        Raises:
            KeyError: there is no such pair.
        """
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.first, pair.second) == (second, first):
                return pair.reversed()
        raise KeyError(f"no pair {first!r}, {second!r}; there are {', '.join(self.labels)}")

    @property
    def winner(self) -> str:
        """Label of the highest mean log p(x); whether it is told apart from the others is another question."""
        return self.labels[0]

    @property
    def rivals(self) -> tuple[Difference, ...]:
        """The winner less each other variant, in the order of ``labels``."""
        return tuple(pair for pair in self.pairs if pair.first == self.winner)

    @property
    def beaten(self) -> tuple[Difference, ...]:
        """`rivals` that the winner is told apart from."""
        return tuple(pair for pair in self.rivals if pair.told_apart)

    @property
    def level_with(self) -> tuple[Difference, ...]:
        """`rivals` that the winner is not told apart from."""
        return tuple(pair for pair in self.rivals if not pair.told_apart)

    @property
    def lower_bounds(self) -> tuple[str, ...]:
        """Variants with a run whose k-hat is too large for more than a tenth of the data."""
        return tuple(
            label
            for label, runs in zip(self.labels, self.held_out, strict=True)
            if not all(run.elpd.trusted for run in runs)
        )

    # --- in words -------------------------------------------------------------------------------------------------

    @property
    def headline(self) -> str:
        """Who wins, by how much, and whether the data can tell, in a few sentences."""
        return " ".join([self._wins(), *self._doubts()])

    def _wins(self) -> str:
        first, error = (float(value[0]) for value in self.mean("log_px"))
        if not self.rivals:
            return f"{self.winner} is alone, with a mean log p(x) of {plus_minus(first, error)} nats per datum."
        nearest, equals = self.rivals[0], [pair.second for pair in self.level_with]
        if not equals:
            words = "wins: it predicts held-out data better than"
            if not all(pair.settled for pair in self.beaten):
                words = "has the higher bound on log p(x), which is no proof that its model is better, than"
            elif self.num_seeds == 1:
                words = "has the fit that predicts held-out data better than"
            if len(self.rivals) == 1:
                return f"{self.winner} {words} {nearest.second}, by {nearest}."
            others = "both others" if len(self.rivals) == 2 else f"all {len(self.rivals)} others"
            return f"{self.winner} {words} {others}; the next, {nearest.second}, is behind by {nearest}."
        told = "but the data cannot tell it from"
        if self.beaten:
            told = f"and is told apart from {_listed([pair.second for pair in self.beaten])}, but not from"
        return (
            f"{self.winner} has the highest mean log p(x), {plus_minus(first, error)} nats per datum, {told} "
            f"{_listed(equals)}; the next, {nearest.second}, is behind by {nearest}."
        )

    def _doubts(self) -> list[str]:
        doubts = []
        if self.num_seeds == 1:
            doubts.append(
                f"With one seed this speaks of these {len(self.labels)} fits and not of their objectives: another seed "
                "could turn it."
            )
        doubtful = [pair.second for pair in self.beaten if not pair.settled]
        if doubtful:
            doubts.append(
                f"log p(x) of {_listed(doubtful)} is a lower bound that may lack more than the difference (k-hat too "
                "large, or too few draws), so that the order could be one of guides rather than of models."
            )
        elif self.lower_bounds:
            doubts.append(
                f"log p(x) of {_listed(self.lower_bounds)} is a lower bound, too low by an unknown amount, since k-hat "
                "is too large for many data."
            )
        return doubts

    def helping(self, pair: Difference) -> str:
        """Which source of error dominates a difference that is not told apart from 0, and what would help."""
        return what_would_help(pair.mean, num_comparisons=len(self.pairs))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Is the winner told apart from each other; do seeds stand behind it; could guides have decided it?"""
        return (*map(self._apart, self.rivals), self._seeds(), self._k_hat(), *self._draws())

    def _apart(self, pair: Difference) -> Verdict:
        sure = pair.told_apart and pair.settled
        todo = "" if pair.told_apart else self.helping(pair)
        if pair.told_apart and not pair.settled:
            todo = (
                f"log p(x) of {pair.second} is a lower bound and may lack more than this; raise num_draws (now "
                f"{self.num_draws:,}) or compare guides of one family"
            )
        return Verdict(
            f"Does {pair.first} predict better than {pair.second}?",
            pair.mean.estimate,
            pair.mean.se,
            "nats per datum",
            f"p below {LEVEL:g} after Holm's correction over {counted(len(self.pairs), 'pair')} (p = "
            f"{pair.p_adjusted:.2g}), and no want of draws that could turn it",
            "Holm 1979, Scandinavian Journal of Statistics 6; error: see methods",
            "pass" if sure else "warn",
            todo,
            "difference",
        )

    def _seeds(self) -> Verdict:
        enough = self.num_seeds > 1
        return Verdict(
            "Does the comparison speak of objectives, and not only of single fits?",
            float(self.num_seeds),
            None,
            f"seed{'s' * enough} of each variant",
            "at least 2",
            "convention: the fewest that show a spread; the interval is wide with so few",
            "pass" if enough else "warn",
            "" if enough else "fit every variant with more seeds; 3 to 5 make the interval useful",
            "num_seeds",
        )

    def _k_hat(self) -> Verdict:
        share = self.runs["share_bad"].max(1)
        most = int(share.argmax())
        size, count = float(share[most]), self.num_data
        outcome: Outcome = "warn" if self.lower_bounds else "pass"
        return Verdict(
            "For how many data is log p(x) only a lower bound, in the worst run?",
            size,
            sqrt(size * (1 - size) / count),
            f"of the data ({self.labels[most]})" if size else "of the data",
            f"at most 0.1 with k-hat above {self.good_k:.2f}",
            "k-hat: Vehtari et al. 2024, arXiv:1507.02646, sec. 3.2; share: convention, as in `analysis.density.elpd`",
            outcome,
            ""
            if outcome == "pass"
            else f"log p(x) of {_listed(self.lower_bounds)} is too low by an unknown amount, and the ranking could be "
            f"one of guides; raise num_draws (now {self.num_draws:,}), or estimate log p(x) by annealing "
            "(`analysis.inference_gaps`)",
            "pareto_k",
        )

    def _draws(self) -> list[Verdict]:
        missing = self.pointwise("rise").mean((1, 2))
        most = int(np.argmax(missing))
        if not isfinite(missing[most]):
            return []
        others = [abs(pair.mean.estimate) for pair in self.rivals] or [nan]
        gap = float(np.nanmin(others)) if isfinite(others[0]) else nan
        spread = min((pair.mean.se for pair in self.rivals), default=self.levels[0].se)
        small = missing[most] <= max(gap / 2 if isfinite(gap) else 0.0, spread / 3)
        return [
            Verdict(
                "How much is log p(x) still too low for want of draws, in the worst variant?",
                float(missing[most]),
                None,
                f"nats per datum, to first order ({self.labels[most]})",
                "at most half of the winner's lead, or a third of its standard error",
                "estimate: Nowozin 2018, ICLR, jackknife variational inference; share: convention",
                "pass" if small else "warn",
                "" if small else f"raise num_draws (now {self.num_draws:,})",
                "log_px_bias",
            )
        ]

    # --- as data --------------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """A row for each variant: mean and standard error over seeds of every figure; JSON-able, ``None`` for NaN."""
        rows = []
        for index, label in enumerate(self.labels):
            row: dict[str, Any] = {
                "variant": label,
                "objective": self.objectives[index],
                "grid": dict(self.grids[index]),
                "num_seeds": self.num_seeds,
            }
            for name in self.runs:
                mean, error = (float(value[index]) for value in self.mean(name))
                row |= {name: _number(mean), f"{name}_se": _number(error)}
            agreed = self.agreements[index]
            for name in ("udr", "cka"):
                value = nan if agreed is None else float(getattr(agreed, f"{name}_mean"))
                error = nan if agreed is None else float(getattr(agreed, f"{name}_se"))
                row |= {name: _number(value), f"{name}_se": _number(error)}
            rows.append(row)
        return rows

    def summary(self) -> dict[str, Any]:
        """Everything but single data; JSON-able."""
        first = self.held_out[0][0]
        return {
            "winner": self.winner,
            "headline": self.headline,
            "told_apart": not self.level_with and bool(self.rivals),
            "variants": self.table(),
            "differences": [pair.summary() for pair in self.differences],
            "pairs": [pair.summary() for pair in self.pairs],
            "num_seeds": self.num_seeds,
            "seeds": self.seeds.tolist(),
            "n": self.num_data,
            "num_draws": self.num_draws,
            "good_k": self.good_k,
            "space": first.space,
            "measure": first.measure,
            "of": first.of,
            "fingerprint": first.fingerprint,
            "notes": list(self.notes),
        }

    def tree(self) -> xr.DataTree:
        """All figures with their dimensions.

        Groups: ``pointwise`` (``variant``, ``seed``, ``datum``), ``runs`` (``variant``, ``seed``), ``latent``
        (``variant``, ``seed``, ``latent``; NaN beyond the latents of a variant), ``summary`` (``variant``),
        ``differences`` (``pair``; of all pairs, ``first`` less ``second``), ``agreement`` (``variant``, ``seed``,
        ``other_seed``). ``seed`` counts from 0, and ``seed_number`` of ``runs`` has the numbers, which differ between
        variants that share none.
        """
        variant = {"variant": np.array(self.labels, dtype=object)}
        both = {**variant, "seed": np.arange(self.num_seeds)}
        datum = {**both, "datum": self.held_out[0][0].ids}
        names = ("log_px", "log_px_mcse", "elbo", "elbo_mcse", "kl", "kl_mcse", "reconstruction", "pareto_k", "rise")
        pointwise = {
            name: (("variant", "seed", "datum"), self.pointwise(name)) for name in (*names, "smoothed", "upper")
        }
        runs = {name: (("variant", "seed"), values) for name, values in self.runs.items()}
        runs["seed_number"] = (("variant", "seed"), self.seeds)
        runs["epochs"] = (("variant", "seed"), np.array([[run.epochs for run in row] for row in self.held_out]))
        rows = self.table()
        averages: dict[str, Any] = {
            name: ("variant", np.array([nan if row[name] is None else row[name] for row in rows]))
            for name in rows[0]
            if name not in ("variant", "objective", "grid", "num_seeds")
        }
        averages["objective"] = ("variant", np.array(self.objectives, dtype=object))
        averages["grid"] = ("variant", np.array([canonical(grid) for grid in self.grids], dtype=object))
        nodes = {
            "pointwise": xr.Dataset(pointwise, coords=datum),
            "runs": xr.Dataset(runs, coords=both),
            "latent": xr.Dataset(self._latent(), coords=both),
            "summary": xr.Dataset(averages, coords=variant),
        }
        if self.pairs:
            nodes["differences"] = self._pairs()
        if any(agreed is not None for agreed in self.agreements):
            shape = (len(self.labels), self.num_seeds, self.num_seeds)
            matrices = {
                name: np.stack([np.full(shape[1:], nan) if a is None else getattr(a, name) for a in self.agreements])
                for name in ("udr", "cka")
            }
            nodes["agreement"] = xr.Dataset(
                {name: (("variant", "seed", "other_seed"), value) for name, value in matrices.items()},
                coords={**both, "other_seed": np.arange(self.num_seeds)},
            )
        tree = xr.DataTree.from_dict(nodes)
        first = self.held_out[0][0]
        tree.attrs |= {"units": "nats per datum", "space": first.space, "num_draws": self.num_draws}
        tree.attrs |= {"winner": self.winner, "headline": self.headline, "fingerprint": first.fingerprint}
        if first.measure is not None:
            tree.attrs["measure"] = first.measure
        if first.of is not None:
            tree.attrs["of"] = first.of
        return tree

    def _latent(self) -> dict[str, Any]:
        size = max(len(run.activity) for row in self.held_out for run in row)
        padded = {name: np.full((len(self.labels), self.num_seeds, size), nan) for name in ("activity", "code_kl")}
        for name, values in padded.items():
            for i, row in enumerate(self.held_out):
                for j, run in enumerate(row):
                    own = getattr(run, name)
                    values[i, j, : len(own)] = own
        return {name: (("variant", "seed", "latent"), values) for name, values in padded.items()}

    def _pairs(self) -> xr.Dataset:
        rows = [pair.summary() for pair in self.pairs]
        chosen = set(zip(self.labels, self.references, strict=True))
        columns: dict[str, Any] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            text = name in ("first", "second")
            columns[name] = (
                "pair",
                np.array([nan if v is None else v for v in values], dtype=object if text else None),
            )
        asked = [(p.first, p.second) in chosen or (p.second, p.first) in chosen for p in self.pairs]
        return xr.Dataset({**columns, "against_baseline": ("pair", np.array(asked))})

    def csv(self) -> str:
        """A table for other programs: a row for each run, then a row for each variant.

        ``level`` says which: in rows ``run`` the figures are those of one fit and have no error; in rows ``mean`` they
        are means over seeds, ``<figure>_se`` are their standard errors, and the columns from ``reference`` on hold the
        difference to the baseline with both sources of error. What is not known is empty. Floats have all their
        digits.
        """
        names = list(self.runs)
        mean_only = ["udr", "cka"]
        against = ["reference", "difference", "difference_se", "low", "high", "se_seeds", "se_data", "p_value"]
        columns = ["level", "variant", "objective", "grid", "seed", "num_seeds", "num_data", "num_draws"]
        for name in (*names, *mean_only):
            columns += [name, f"{name}_se"]
        columns += [*against, "p_adjusted"]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns, restval="", lineterminator="\n")
        writer.writeheader()
        sizes = {"num_data": self.num_data, "num_draws": self.num_draws}
        for index, label in enumerate(self.labels):
            about = {"variant": label, "objective": self.objectives[index], "grid": canonical(self.grids[index])}
            for j, seed in enumerate(self.seeds[index]):
                figures = {name: _cell(self.runs[name][index, j]) for name in names}
                writer.writerow({"level": "run", **about, "seed": int(seed), "num_seeds": 1, **sizes, **figures})
        for index, (label, row) in enumerate(zip(self.labels, self.table(), strict=True)):
            about = {"variant": label, "objective": self.objectives[index], "grid": canonical(self.grids[index])}
            figures = {key: _cell(row[key]) for key in columns if key in row and key not in (*about, "num_seeds")}
            writer.writerow(
                {"level": "mean", **about, "num_seeds": self.num_seeds, **sizes, **figures, **self._against(index)}
            )
        return text.getvalue()

    def _against(self, index: int) -> dict[str, Any]:
        reference = self.references[index]
        if reference is None:
            return {}
        row = next(pair for pair in self.differences if pair.first == self.labels[index]).summary()
        keys = {"difference": "estimate", "difference_se": "se"} | {
            key: key for key in ("low", "high", "se_seeds", "se_data", "p_value", "p_adjusted")
        }
        return {"reference": reference, **{ours: _cell(row[theirs]) for ours, theirs in keys.items()}}

    def __str__(self) -> str:
        """The table without the times of the fits, so that an experiment that was interrupted prints the same again."""
        heads = ("", "log p(x)", "ELBO", "KL", "log p(x) - ELBO", "active", "k-hat bad")
        rows: list[tuple[str, ...]] = [heads]
        means = {name: self.mean(name) for name in ("log_px", "elbo", "kl", "gap", "active_units")}
        for index, label in enumerate(self.labels):
            cells = [plus_minus(float(mean[index]), float(error[index])) for mean, error in means.values()]
            rows.append((_plain(label), *cells, f"{self.runs['share_bad'][index].mean():.1%}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        room = max(_WIDTH - sum(widths[1:]) - 2 * (len(heads) - 1), 10)
        widths[0] = min(widths[0], room)
        lines = [
            "  ".join(
                [_shortened(row[0], widths[0]).ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            ).rstrip()
            for row in rows
        ]
        lines.append(
            f"nats per datum, mean ± standard error over {self.num_seeds} seed{'s' * (self.num_seeds > 1)}; "
            f"{self.num_data:,} data, {self.num_draws:,} draws each"
        )
        said = [f"{_plain(pair.first)} less {_plain(pair.second)}: {pair}" for pair in self.differences]
        said += [_plain(self.headline)]
        if self.level_with:
            pair = self.level_with[0]
            said.append(f"{_plain(pair.first)} and {_plain(pair.second)}: {self.helping(pair)}")
        said += list(map(_plain, self.notes))
        for sentence in said:
            lines += textwrap.wrap(sentence, _WIDTH, subsequent_indent="  ")
        return "\n".join(lines)


# --- from runs to a comparison ------------------------------------------------------------------------------------


def compare_variants(measured: Sequence[Measured], *, baseline: str | None = None) -> ExperimentComparison:
    """Compare variants of an experiment by held-out log p(x), seed by seed and datum by datum.

    Seeds are paired by their number: all variants are compared on the seeds that all of them have, and other runs are
    left out with a note. Where no seed is shared by all, they are paired in order of their numbers, which is as right,
    since independent fits may be paired in any way that does not look at their results.

    Args:
        measured: one entry for each run, of one or more variants.
        baseline: label of a variant, or an objective; the first run's if not given. A variant of another objective is
            compared with the variant of the baseline's objective that has the same grid; where there is none, or only
            one objective, with the baseline itself.

    Raises:
        ValueError: no runs, a run twice, a label that means two things, an unknown baseline, fewer than 2 data, an
            estimate that is not finite, or what `analysis.density.comparison.compare` refuses: other data, other
            observed values, another observation space, densities against probabilities, other numbers of draws.

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    variants = grouped(measured)
    require_finite(measured)
    first = measured[0]
    for other in measured[1:]:
        names = (f"{run.label!r} (seed {run.seed})" for run in (first, other))
        require_comparable(next(names), first.held_out.elpd, next(names), other.held_out.elpd)
    if len(first.held_out) < 2:
        raise ValueError("one datum shows no spread over data; measure at least 2")
    base = baseline_of(measured, variants, baseline)
    chosen, notes = paired(variants)
    means = {label: float(np.mean([run.held_out.log_px.mean() for run in runs])) for label, runs in chosen.items()}
    labels = sorted(chosen, key=lambda label: -means[label])  # stable: of equal means the first given comes first
    pairs = all_pairs(labels, chosen)
    return ExperimentComparison(
        labels=tuple(labels),
        objectives=tuple(chosen[label][0].objective for label in labels),
        grids=tuple(dict(chosen[label][0].grid) for label in labels),
        seeds=np.array([[run.seed for run in chosen[label]] for label in labels]),
        held_out=tuple(tuple(run.held_out for run in chosen[label]) for label in labels),
        gaps=tuple(tuple(run.gaps for run in chosen[label]) for label in labels),
        references=tuple(reference_of(chosen[label][0], base, chosen) for label in labels),
        pairs=pairs,
        agreements=tuple(_agreement([run.held_out for run in chosen[label]]) for label in labels),
        notes=tuple(notes),
    )


def _agreement(runs: Sequence[HeldOut]) -> Agreement | None:
    if len(runs) < 2 or len(runs[0]) < _LEAST_AGREEING:
        return None
    active = [run.code_kl > _INFORMATIVE if np.isfinite(run.code_kl).all() else run.active for run in runs]
    return agreement([run.codes for run in runs], active)


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _cell(value: Any) -> str:
    return "" if value is None or not isfinite(value) else repr(float(value))


def _listed(names: Sequence[str], most: int = 5) -> str:
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
