"""Every combination of objective, grid value and seed as a run folder of its own, on the same data."""

from vae_pyro.experiments.folder import Experiment, Status, Trial, read_experiment
from vae_pyro.experiments.plan import ExperimentConfig, Variant, parse_grid
from vae_pyro.experiments.running import ExperimentInterruptedError, run

__all__ = [
    "Experiment",
    "ExperimentConfig",
    "ExperimentInterruptedError",
    "Status",
    "Trial",
    "Variant",
    "parse_grid",
    "read_experiment",
    "run",
]
