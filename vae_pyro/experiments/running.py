"""`run_experiment`: every combination of objective, grid value and seed as a run folder of its own, on the same data.

An experiment is a plan (`ExperimentConfig`, in ``experiment.json``) and its runs. Finished runs are kept: the same call
again continues what was interrupted, and a call that adds objectives, seeds or grid values extends the experiment.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_pyro.core.files import RunError, write_json
from vae_pyro.experiments.config import ExperimentConfig
from vae_pyro.experiments.folder import Experiment, Finish, begin, error_file, experiment_at, is_done
from vae_pyro.experiments.plan import plan_experiment
from vae_pyro.experiments.progress import ExperimentProgress
from vae_pyro.experiments.worker import Broken, Task, load, perform
from vae_pyro.parallel.locks import locked
from vae_pyro.parallel.signals import FitInterruptedError
from vae_pyro.parallel.tasks import Backend, Outcome, WorkInterruptedError, map_tasks


class ExperimentInterruptedError(FitInterruptedError):
    """SIGINT or SIGTERM ended `run_experiment`; its workers have stopped, and every finished epoch is on disk."""

    def __init__(self, signum: int, out: Path) -> None:
        super().__init__(signum, out)
        self.args = (f"{self.args[0].partition(';')[0]}; the same call again continues {str(out)!r}",)


def run_experiment(
    out: str | Path,
    source: str,
    *,
    objectives: Sequence[str],
    seeds: int | Sequence[int] = 5,
    grid: Mapping[str, Sequence[Any]] | None = None,
    finish: Finish | None = None,
    preset_name: str | None = None,
    file: Path | None = None,
    assignments: Sequence[tuple[Sequence[str], Any]] = (),
    ensemble: bool = False,
    backend: Backend = "loky",
    num_workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    address: str | None = None,
    show: bool | None = None,
) -> Experiment:
    """Fit every combination of objective, grid value and seed, each in a run folder ``OUT/runs/NAME``.

    Runs that are done are kept, half-finished ones continue after their last epoch to the bits of an uninterrupted run,
    and broken ones are tried again. The weights of a run do not depend on the backend.

    An ensemble (`vae_pyro.training.ensemble.fit_ensemble`) is one task for each variant. Its runs equal those fitted
    alone up to rounding, which depends on the number of runs fitted together; runs whose checkpoints are at different
    steps, after a crash between two files, continue separately.

    Args:
        out: folder of the experiment; on a cluster, one that all nodes share.
        source: name or path of the data, see `vae_pyro.load_data`.
        objectives: see `vae_pyro.objectives`; ``"name"`` or ``"name:option=value"``.
        seeds: of weights and fit: a number of seeds, counted from 0, or the seeds. The split has its own seed
            (``data.seed``).
        grid: keys as in ``--set`` (``latent_dim``, ``optimizer.lr``), each with its values.
        finish: called in the worker as ``finish(folder, vae, data)`` after the run has been fitted; a function of a
            module, or a `functools.partial` of one. It must be idempotent. A run is done only while the files that it
            wrote into the run folder are there.
        preset_name: see `vae_pyro.models.presets`.
        file: settings that all runs share, see `vae_pyro.training.settings.read_settings_file`; its seed is not used.
        assignments: likewise, as paths and values.
        ensemble: fit all seeds of a variant at once, as one compiled program; requires ``compile`` and no ``patience``.
        backend: see `vae_pyro.parallel.tasks.map_tasks`, as for ``num_workers``, ``threads``, ``retries`` and
            ``address``.
        num_workers: number of runs, or ensembles, fitted at once.
        threads: threads of each run, on which the rounding of sums, and so the weights, depend.
        retries: number of further attempts in this call at a run, or an ensemble, whose worker died.
        address: address of the cluster.
        show: show one live view of all runs; by default where standard error is a terminal.

    Returns:
        The experiment, with the status of each trial and the errors of those that broke.

    Raises:
        ValueError: see `vae_pyro.experiments.plan.plan_experiment` and `vae_pyro.parallel.tasks.map_tasks`; or
            ``cuda:N``, since workers choose their device.
        RunError: ``out`` contains something else, another process runs it, or it was begun with other data or settings.
        ExperimentInterruptedError: SIGINT or SIGTERM, after the workers have ended.
    """
    config = plan_experiment(
        source,
        objectives=objectives,
        seeds=seeds,
        grid=grid,
        preset_name=preset_name,
        file=file,
        assignments=assignments,
        ensemble=ensemble,
    )
    device = str(config.variants[0]["fit"]["device"])
    if backend != "sequential" and device.startswith("cuda:"):
        raise ValueError(
            f"device {device!r} is one GPU, and each worker takes a GPU of its own; choose 'cuda' or 'auto'"
        )
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise RunError(f"{str(path)!r} is a file; name a folder")
    path.mkdir(parents=True, exist_ok=True)
    try:
        with locked(path / "lock", wait=False):
            begin(path, config)
            return _run(
                path,
                config,
                finish,
                show,
                backend=backend,
                num_workers=num_workers,
                threads=threads,
                retries=retries,
                address=address,
            )
    except BlockingIOError:
        raise RunError(f"another process runs the experiment in {str(path)!r}; wait until it has ended") from None
    except (WorkInterruptedError, FitInterruptedError) as stopped:
        raise ExperimentInterruptedError(stopped.signum, path) from None
    finally:
        load.cache_clear()


def _tasks(path: Path, config: ExperimentConfig, before: Experiment, finish: Finish | None) -> Iterator[Task]:
    """One for each run that is not done; for an ensemble, one for all of a variant."""
    source = Path(config.data["source"])
    data = {**config.data, "source": str(source.resolve())} if source.exists() else config.data  # on any node
    for variant in config.variants:
        trials = [trial for trial in before.trials if trial.variant.label == variant["label"]]
        left = {trial.name: trial.seed for trial in trials if before.status[trial.name] != "done"}
        for seeds in [left] if config.ensemble and left else [{name: seed} for name, seed in left.items()]:
            yield Task(
                path=str(path.resolve()),
                seeds=seeds,
                data=data,
                fingerprint=config.fingerprint,
                model=variant["model"],
                fit=variant["fit"],
                finish=finish,
            )


def _run(path: Path, config: ExperimentConfig, finish: Finish | None, show: bool | None, **how: Any) -> Experiment:
    before = experiment_at(path, config, finish)
    tasks = _tasks(path, config, before, finish)
    with ExperimentProgress(before, show=show) as shown:

        def note(outcome: Outcome[Task, tuple[Broken, ...]]) -> None:
            broken = {one.name: one for one in outcome.value or ()}
            for name in outcome.task.seeds:
                if outcome.error is not None and not is_done(outcome.task.folder(name), finish):
                    broken[name] = Broken(name, outcome.error, outcome.traceback)
                _write_error(error_file(path, name), broken.get(name))
                shown.ended(name, broken=name in broken)

        map_tasks(perform, tasks, on_done=note, **how)
    return experiment_at(path, config, finish)


def _write_error(file: Path, broken: Broken | None) -> None:
    if broken is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(exist_ok=True)
    write_json(file, {"run": broken.name, "error": broken.error, "traceback": broken.traceback})
