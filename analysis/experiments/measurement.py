"""A run of an experiment, measured where it was fitted, and all of them gathered for the comparison."""

from pathlib import Path
from typing import Any

from analysis.experiments.comparison import ExperimentComparison, compare_variants
from analysis.experiments.held_out import measure_run, read_held_out
from analysis.experiments.variants import Gaps, Measured
from analysis.posterior.gaps.decomposition import inference_gaps
from vae_pyro.core.files import RunError, read_json, write_json
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import Dataset
from vae_pyro.experiments.folder import Experiment
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder

GAPS_FILE = "gaps.json"
_GAPS_STREAM = 1
_ANNEALING_DRAWS = 500


def measure(
    folder: RunFolder,
    vae: VAE,
    data: Dataset,
    *,
    split: str = "test",
    num_draws: int = 500,
    seed: int = 0,
    limit: int | None = None,
    num_gap_data: int = 0,
) -> None:
    """Leave what a comparison wants to know of a run in its folder; what stands there and is current stays.

    The ``finish`` of `vae_pyro.experiments.run`, with its options bound by `functools.partial`: with the same options
    all runs are measured on the same data with the same noise.

    Args:
        folder: of the run; gets ``held_out.nc`` and, with gaps, ``gaps.json``.
        vae: the fitted VAE.
        data: what it was fitted on.
        split: see `analysis.experiments.held_out.measure_run`; likewise ``num_draws``, ``seed`` and ``limit``.
        num_gap_data: data whose approximation and amortization gap are measured, the same of every run; 0 leaves the
            gaps out. Each takes an optimisation and an annealing of its own, a second or so.

    Raises:
        ValueError: see `analysis.experiments.held_out.measure_run` and `analysis.inference_gaps`.
        RunError: see `analysis.experiments.held_out.measure_run`.
    """
    measure_run(folder, vae, data, split=split, num_draws=num_draws, seed=seed, limit=limit)  # type: ignore[arg-type]
    if not num_gap_data:
        (folder.path / GAPS_FILE).unlink(missing_ok=True)
        return
    made_of = {
        "weights": folder.weights_digest(),
        "split": split,
        "limit": limit,
        "seed": seed,
        "num_draws": num_draws,
        "num_gap_data": num_gap_data,
    }
    try:
        if read_json(folder.path / GAPS_FILE)["made_of"] == made_of:
            return
    except RunError:
        pass
    chosen = data.split(split)
    chosen = chosen if limit is None else chosen.take(slice(0, limit))
    found = inference_gaps(
        vae, chosen, num_data=num_gap_data, num_draws=max(num_draws, _ANNEALING_DRAWS), num_simulated=0,
        seed=derive_seed(seed, _GAPS_STREAM),
    )  # fmt: skip
    write_json(folder.path / GAPS_FILE, {"made_of": made_of, "gaps": vars(Gaps.of(found))})


def gather(experiment: Experiment) -> tuple[list[Measured], dict[tuple[str, int], list[dict[str, float]]]]:
    """The runs of an experiment that are done, and the history of each by label and seed.

    Raises:
        RunError: what `measure` left of a run is absent or damaged.
    """
    measured, histories = [], {}
    for trial in experiment.having("done"):
        variant, folder = trial.variant, trial.folder
        file = folder.path / GAPS_FILE
        gaps = Gaps(**read_json(file)["gaps"]) if file.exists() else None
        measured.append(
            Measured(variant.label, variant.objective, variant.grid, trial.seed, read_held_out(folder), gaps)
        )
        histories[variant.label, trial.seed] = folder.read_history()
    return measured, histories


def compare_experiment(
    experiment: Experiment, *, baseline: str | None = None, write: bool = True
) -> tuple[ExperimentComparison, list[Path]]:
    """Compare what has been measured, and write the comparison into the folder of the experiment.

    Args:
        experiment: whose runs were measured by `measure`.
        baseline: see `analysis.experiments.comparison.compare_variants`.
        write: ``comparison.html``, ``.csv``, ``.nc`` and ``.png``.

    Returns:
        The comparison, and the files.

    Raises:
        ValueError: no run is done, or see `analysis.experiments.comparison.compare_variants`.
        RunError: see `gather`.
    """
    from analysis.experiments.page import write_comparison

    measured, histories = gather(experiment)
    if not measured:
        raise ValueError(f"no run of {str(experiment.path)!r} is done\n{experiment}")
    comparison = compare_variants(measured, baseline=baseline)
    if not write:
        return comparison, []
    facts = _facts(experiment)
    provenance = experiment.having("done")[0].folder.config()
    about = {**provenance["versions"], "revision": provenance["git_revision"] or "not a checkout"}
    return comparison, write_comparison(comparison, experiment.path, histories=histories, facts=facts, provenance=about)


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
