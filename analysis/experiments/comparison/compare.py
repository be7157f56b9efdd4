"""Comparison of measured runs, or of the runs in the folder of an experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.density.comparability import require_comparable
from analysis.experiments.comparison.differences import all_pairs
from analysis.experiments.comparison.estimates import VariantEstimates
from analysis.experiments.comparison.result import ExperimentComparison
from analysis.experiments.comparison.runs import MeasuredRun, baseline_of, grouped, paired, reference_of, require_finite
from analysis.experiments.measurement import gather
from vae_pyro.experiments.folder import Experiment


def compare_variants(measured: Sequence[MeasuredRun], *, baseline: str | None = None) -> ExperimentComparison:
    """Compare variants of an experiment by held-out log p(x), paired by seed and datum.

    Seeds are paired by their number: all variants are compared on the seeds that all of them have, and other runs are
    left out with a note. Where no seed is shared by all, they are paired in the order of their numbers, which is
    equally valid, since independent fits may be paired in any way that does not depend on their results.

    Args:
        measured: one entry for each run, of one or more variants.
        baseline: label of a variant, or an objective; that of the first run by default. A variant of another objective
            is compared with the variant of the baseline's objective that has the same grid point; where there is none,
            or only one objective, with the baseline itself.

    Raises:
        ValueError: no runs, a run twice, one label for two variants, an unknown baseline, fewer than 2 data, an
            estimate that is not finite, or runs that `analysis.density.comparison.compare` refuses: other data, other
            observed values, another observation space, densities against probabilities, other numbers of draws.

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    variants = grouped(measured)
    require_finite(measured)
    first = measured[0]
    for other in measured[1:]:
        names = [f"{run.label!r} (seed {run.seed})" for run in (first, other)]
        require_comparable(names[0], first.held_out.elpd, names[1], other.held_out.elpd)
    if len(first.held_out) < 2:
        raise ValueError("one datum shows no spread over data; measure at least 2")
    base = baseline_of(measured, variants, baseline)
    chosen, notes = paired(variants)
    estimates = VariantEstimates.of(chosen)
    return ExperimentComparison(
        estimates=estimates,
        references=tuple(reference_of(chosen[label][0], base, chosen) for label in estimates.labels),
        pairs=all_pairs(estimates.labels, chosen),
        notes=tuple(notes),
    )


def compare_experiment(
    experiment: Experiment, *, baseline: str | None = None, write: bool = True
) -> tuple[ExperimentComparison, list[Path]]:
    """Compare the measured runs of an experiment, and write the comparison into its folder.

    Args:
        experiment: whose runs were measured by `analysis.experiments.measurement.measure`.
        baseline: see `compare_variants`.
        write: write ``comparison.html``, ``.csv``, ``.nc`` and ``.png``.

    Returns:
        The comparison, and the files.

    Raises:
        ValueError: no run is done, or see `compare_variants`.
        RunError: see `analysis.experiments.measurement.gather`.
    """
    from analysis.experiments.comparison.page import write_comparison

    measured, histories = gather(experiment)
    comparison = compare_variants(measured, baseline=baseline)
    if not write:
        return comparison, []
    stored = experiment.having("done")[0].folder.config()
    provenance = {**stored["versions"], "revision": stored["git_revision"] or "not a checkout"}
    files = write_comparison(
        comparison, experiment.path, histories=histories, facts=_facts(experiment), provenance=provenance
    )
    return comparison, files


def _facts(experiment: Experiment) -> dict[str, Any]:
    facts: dict[str, Any] = {"data": experiment.config.data["source"]}
    model, fit = experiment.config.model, experiment.config.fit
    for key, value in (("likelihood", model), ("latent_dim", model), ("encoder", model), ("epochs", fit),
                       ("batch_size", fit), ("optimizer", fit)):  # fmt: skip
        if key in value:
            shown = value[key]
            facts[key.replace("_", " ")] = _choice(shown) if isinstance(shown, dict) else shown
    broken = experiment.having("broken")
    if broken:
        facts["broken runs, left out"] = ", ".join(trial.name for trial in broken)
    return facts


def _choice(value: dict[str, Any]) -> str:
    options = ", ".join(f"{key} {option}" for key, option in value.items() if key != "name")
    return f"{value['name']} ({options})" if options else str(value["name"])
