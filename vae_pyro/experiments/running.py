"""`run`: every combination of objective, grid value and seed as a run folder of its own, on the same data.

An experiment is a plan (`ExperimentConfig`, in ``experiment.json``) and its runs. What is there is kept: the same call
again continues what was interrupted, and a call that adds objectives, seeds or grid values extends it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_pyro.core.files import RunError, write_json
from vae_pyro.experiments.folder import Experiment, Finish, begin, error_file, is_done, standing
from vae_pyro.experiments.plan import ExperimentConfig, plan
from vae_pyro.experiments.progress import ExperimentProgress
from vae_pyro.experiments.worker import Broken, Task, load, perform
from vae_pyro.parallel.locks import locked
from vae_pyro.parallel.signals import FitInterruptedError
from vae_pyro.parallel.tasks import Backend, Outcome, WorkInterruptedError, map_tasks


class ExperimentInterruptedError(FitInterruptedError):
    """SIGINT or SIGTERM ended `run`; its workers are gone and every whole epoch is on the disk."""

    def __init__(self, signum: int, out: Path) -> None:
        super().__init__(signum, out)
        self.args = (f"{self.args[0].partition(';')[0]}; the same call again continues {str(out)!r}",)


def run(
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

    Runs that are done are kept, half-finished ones go on after their last epoch to the bits of an undisturbed run, and
    what broke is tried again. Which backend fits a run does not change its weights.

    An ensemble (`vae_pyro.training.ensemble.fit_ensemble`) is one task for each variant. Its runs are what they would
    be alone, to the rounding of sums in another order, which depends on how many are fitted together; those whose
    checkpoints stand at different steps, after a crash between two files, go on apart.

    Args:
        out: folder of the experiment; on a cluster, one that all nodes share.
        source: name or path of the data, see `vae_pyro.load_data`.
        objectives: see `vae_pyro.objectives`; ``"name"`` or ``"name:option=value"``.
        seeds: of weights and fit: how many, from 0 on, or which. The split has the data's own seed (``data.seed``).
        grid: keys as ``--set`` takes them (``latent_dim``, ``optimizer.lr``), each with its values.
        finish: called in the worker as ``finish(folder, vae, data)`` when the run has been fitted; a function of a
            module, or a `functools.partial` of one. It may be called again, and has to bear it. Files that it leaves in
            the run folder belong to a run that is done.
        preset_name: see `vae_pyro.models.presets`.
        file: settings that all runs share, see `vae_pyro.training.settings.read_settings_file`; its seed is not used.
        assignments: likewise, as paths and values.
        ensemble: fit all seeds of a variant at once, as one compiled program. It needs ``compile`` and no ``patience``.
        backend: see `vae_pyro.parallel.tasks.map_tasks`, as for ``num_workers``, ``threads``, ``retries`` and
            ``address``.
        num_workers: runs, or ensembles, at once.
        threads: of each run. Sums, and so weights, depend on it.
        retries: how often a run, or an ensemble, whose worker died is given again in this call.
        address: of the cluster.
        show: one live view of all runs; ``None`` shows it where standard error is a terminal.

    Returns:
        The experiment, with the status of each trial and what broke.

    Raises:
        ValueError: see `plan` and `vae_pyro.parallel.tasks.map_tasks`; or ``cuda:N`` where workers choose their device.
        RunError: ``out`` holds something else, another process is at it, or it was begun with other data or settings.
        ExperimentInterruptedError: SIGINT or SIGTERM, after the workers have ended.
    """
    config = plan(
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
        raise ValueError(f"device {device!r}: each worker takes a GPU of its own; choose 'cuda' or 'auto'")
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
        raise RunError(f"another process is at the experiment in {str(path)!r}; wait for its end, or end it") from None
    except (WorkInterruptedError, FitInterruptedError) as stopped:
        raise ExperimentInterruptedError(stopped.signum, path) from None
    finally:
        load.cache_clear()


def _tasks(path: Path, config: ExperimentConfig, before: Experiment, finish: Finish | None) -> Iterator[Task]:
    """One for each run that is not done; of an ensemble one for those of a variant."""
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
    before = standing(path, config, finish)
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
    return standing(path, config, finish)


def _write_error(file: Path, broken: Broken | None) -> None:
    if broken is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(exist_ok=True)
    write_json(file, {"run": broken.name, "error": broken.error, "traceback": broken.traceback})
