"""The part of an experiment in a worker: fit runs, one by one or as an ensemble, and call ``finish`` for each."""

import functools
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_pyro.core.files import RunError, write_json
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.experiments.config import first_difference
from vae_pyro.experiments.folder import Finish, identity, lock_file, measured_files, record_file, sound_weights
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.parallel.locks import locked
from vae_pyro.parallel.process import in_words
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.ensemble import fit_ensemble
from vae_pyro.training.fitting import FitResult, fit


@dataclass(frozen=True)
class Task:
    """Runs of one variant for a worker.

    Attributes:
        path: folder of the experiment.
        seeds: seed of each run by its name; several are an ensemble.
        data: `vae_pyro.DataConfig`.
        fingerprint: expected fingerprint of the data.
        model: `vae_pyro.VAEConfig`.
        fit: `vae_pyro.FitConfig`.
        finish: see `vae_pyro.experiments.running.run_experiment`.
    """

    path: str
    seeds: dict[str, int]
    data: dict[str, Any]
    fingerprint: str
    model: dict[str, Any]
    fit: dict[str, Any]
    finish: Finish | None

    def folder(self, name: str) -> RunFolder:
        """Folder of one of the runs."""
        return RunFolder(Path(self.path) / "runs" / name)

    def vae(self, name: str) -> VAE:
        """The VAE of a run before its fit."""
        return VAE(VAEConfig(**self.model), seed=self.seeds[name])


@dataclass(frozen=True)
class Broken:
    """The exception of one run.

    Attributes:
        name: name of the run.
        error: see `vae_pyro.parallel.tasks.Outcome`.
        traceback: likewise.
    """

    name: str
    error: str
    traceback: str | None


@functools.lru_cache(maxsize=1)
def load(described: str) -> Dataset:
    """The data of a `vae_pyro.DataConfig` in JSON; a worker caches the last."""
    return DataConfig(**json.loads(described)).load()


def perform(task: Task) -> tuple[Broken, ...]:
    """Fit and measure the runs of a task, each from its last checkpoint.

    Returns:
        The runs that broke; the others are done.

    Raises:
        RunError: the data differ on this machine.
        FitInterruptedError: see `vae_pyro.fit`.
    """
    broken: dict[str, Broken] = {}
    with ExitStack() as held:
        # A worker that was given up may still run on a node out of reach: wait until it has ended.
        for name in task.seeds:
            held.enter_context(locked(lock_file(Path(task.path), name)))
        data = load(json.dumps(task.data))
        found = data.facts.fingerprint
        if found != task.fingerprint:
            raise RunError(
                f"the data {data.config.source!r} have fingerprint {found[:12]} here and {task.fingerprint[:12]} where "
                "the experiment was begun"
            )
        for name, vae in _fitted(task, data, broken).items():
            with _caught(name, broken):
                _finish(task, name, vae, data)
    return tuple(broken.values())


@contextmanager
def _caught(name: str, broken: dict[str, Broken]) -> Iterator[None]:
    """An exception inside breaks this run alone."""
    try:
        yield
    except (Exception, SystemExit) as error:
        broken[name] = Broken(name, *in_words(error))


def _finish(task: Task, name: str, vae: VAE, data: Dataset) -> None:
    folder = task.folder(name)
    if task.finish is not None:
        task.finish(folder, vae, data)
    record = {
        "weights": folder.weights_digest(),
        "finish": identity(task.finish),
        "files": {} if task.finish is None else measured_files(folder),
    }
    write_json(record_file(folder), record)


def _fitted(task: Task, data: Dataset, broken: dict[str, Broken]) -> dict[str, VAE]:
    """The VAE of each run that did not break."""
    vaes: dict[str, VAE] = {}
    by_place: dict[tuple[int, int] | None, list[str]] = {}
    for name in task.seeds:
        with _caught(name, broken):
            folder = task.folder(name)
            if _is_fitted(folder, task, task.seeds[name]):
                vaes[name] = folder.load_model(FitConfig(**task.fit).torch_device())
            else:
                by_place.setdefault(_place(folder), []).append(name)
    for place, names in by_place.items():
        if len(names) == 1:
            with _caught(names[0], broken):
                vaes[names[0]] = _fit_alone(task, names[0], data, resume=place is not None)
            continue
        try:
            results = _fit_together(task, names, data, resume=place is not None)
        except Exception as error:
            broken |= {name: Broken(name, *in_words(error)) for name in names}
            continue
        for name, result in zip(names, results, strict=True):
            if isinstance(result, FitResult):
                vaes[name] = result.vae
            else:
                broken[name] = Broken(name, *in_words(result))
    return vaes


def _is_fitted(folder: RunFolder, task: Task, seed: int) -> bool:
    """Whether the weights of this run are complete.

    Raises:
        RunError: the folder contains another run.
    """
    try:
        stored = folder.config()
    except RunError:
        return False
    for section, expected in (("model", task.model), ("fit", task.fit), ("seed", seed)):
        key = first_difference(stored[section], expected, section)
        if key is not None:
            raise RunError(f"{str(folder.path)!r} contains another run: {key}; move it away")
    return sound_weights(folder) is not None


def _place(folder: RunFolder) -> tuple[int, int] | None:
    """Epoch and step of the checkpoint; ``None`` where there is none."""
    if folder.path.exists() and not folder.config_file.exists():
        shutil.rmtree(folder.path)  # a process was killed before the run had begun
    try:
        folder.config()
        _, info, _ = folder.read_checkpoint()
    except RunError:
        return None
    return info["state"]["epoch"], info["state"]["batch"]


def _fit_alone(task: Task, name: str, data: Dataset, *, resume: bool) -> VAE:
    return fit(
        task.vae(name),
        data.train,
        validation=data.validation,
        config=FitConfig(**task.fit),
        seed=task.seeds[name],
        out=task.folder(name).path,
        resume=resume,
        overwrite=not resume,
        data=data,
        progress=False,
    ).vae


def _fit_together(task: Task, names: list[str], data: Dataset, *, resume: bool) -> list[FitResult | ArithmeticError]:
    return [
        *fit_ensemble(
            [task.vae(name) for name in names],
            data.train,
            validation=data.validation,
            config=FitConfig(**task.fit),
            seeds=[task.seeds[name] for name in names],
            out=[task.folder(name).path for name in names],
            resume=resume,
            overwrite=not resume,
            data=data,
            progress=False,
        )
    ]
