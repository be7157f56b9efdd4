"""The rate-distortion curve of an experiment over beta, from the held-out results of its runs."""

from pathlib import Path

from analysis.experiments.measurement import gather
from analysis.experiments.rate_distortion.points import RatePoint
from analysis.experiments.rate_distortion.result import RateDistortion
from vae_pyro.experiments.folder import Experiment, read_experiment
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.runs.folder import RunFolder


def rate_distortion_of(experiment: Experiment | str | Path) -> RateDistortion:
    """The curve of an experiment over beta, whose runs were measured by `analysis.experiments.measurement.measure`.

    Each run that is done is a point. Its beta is that of its objective: 4 for ``beta:beta=4``, 1 for the ELBO, none for
    another objective. A run whose KL had not reached its full weight at the end, or whose weight was cyclic, was not
    fitted with that beta and has none. The stored results have no Monte Carlo error of the distortion; the sum of those
    of rate and ELBO, which is an upper bound, takes its place.

    Args:
        experiment: or its folder.

    Raises:
        ValueError: no run is done, or runs were measured on other data.
        RunError: the folder contains no experiment, or a measurement is absent or damaged.
    """
    if not isinstance(experiment, Experiment):
        experiment = read_experiment(experiment)
    measured, _ = gather(experiment)
    first = measured[0].held_out
    points = []
    for run, trial in zip(measured, experiment.having("done"), strict=True):
        held = run.held_out
        if held.fingerprint != first.fingerprint or held.num_draws != first.num_draws:
            raise ValueError(
                f"{run.label!r} was measured on other data or with other draws than {measured[0].label!r}; measure all "
                "runs with the same options"
            )
        points.append(
            RatePoint(
                label=f"{run.label} seed {run.seed}",
                beta=beta_of(run.objective) if _full_weight(trial.folder) else None,
                rate=held.kl,
                rate_mcse=held.kl_mcse,
                distortion=-held.reconstruction,
                distortion_mcse=held.kl_mcse + held.elbo_mcse,
            )
        )
    return RateDistortion.of(points, first.num_draws)


def beta_of(objective: str) -> float | None:
    """Weight of the KL of an objective such as ``beta:beta=4``; ``None`` where the objective has no such weight."""
    return OBJECTIVES.build(OBJECTIVES.resolve(objective)).kl_factor


def _full_weight(folder: RunFolder) -> bool:
    """Whether the KL of a run had reached its full weight for good at the end."""
    how = folder.config()["fit"]
    if how.get("kl_cycle") is not None and how.get("kl_warmup"):
        return False
    return folder.read_history()[-1]["kl_weight"] >= 1
