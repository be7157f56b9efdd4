"""The folder of an experiment: its plan, which can only be extended, its runs, and the status of each."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vae_pyro.core.files import RunError, read_json, read_tensors, write_json
from vae_pyro.data.dataset import Dataset
from vae_pyro.experiments.config import ExperimentConfig, Variant, first_difference, trial_name
from vae_pyro.models.vae import VAE
from vae_pyro.parallel.locks import is_held
from vae_pyro.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

type Status = Literal["waiting", "running", "half-finished", "done", "broken"]
type Finish = Callable[[RunFolder, VAE, Dataset], Any]

_STATUSES: tuple[Status, ...] = get_args(Status.__value__)
# Broken runs that are printed with their error, and rows of the table in a notebook.
_MAX_ERRORS, _MAX_ROWS = 5, 20


@dataclass(frozen=True)
class Trial:
    """One variant with one seed.

    Attributes:
        variant: objective and grid point.
        seed: seed of weights and fit.
        name: name of the folder, which depends on variant and seed alone.
        folder: an ordinary run folder.
    """

    variant: Variant
    seed: int
    name: str
    folder: RunFolder


@dataclass(repr=False)
class Experiment:
    """The state of an experiment on disk.

    Attributes:
        path: its folder.
        config: the plan.
        trials: in the order of variants, then seeds.
        status: of each trial by its name.
        errors: error of each broken trial by its name; in full in ``errors/NAME.json``.
    """

    path: Path
    config: ExperimentConfig
    trials: tuple[Trial, ...]
    status: dict[str, Status]
    errors: dict[str, str]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants, in the order of the plan."""
        return tuple({trial.variant.label: trial.variant for trial in self.trials}.values())

    def having(self, status: Status) -> tuple[Trial, ...]:
        """The trials with this status."""
        return tuple(trial for trial in self.trials if self.status[trial.name] == status)

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each trial by its name: objective, value of each key of the grid, seed, status and error."""
        import pandas as pd

        rows = [
            {
                "trial": trial.name,
                "objective": trial.variant.objective,
                **trial.variant.grid,
                "seed": trial.seed,
                "status": self.status[trial.name],
                "error": self.errors.get(trial.name, ""),
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows).set_index("trial")

    def __repr__(self) -> str:
        return f"<Experiment: {str(self).partition(chr(10))[0]}>"

    def __str__(self) -> str:
        counts = {status: len(self.having(status)) for status in _STATUSES}
        parts = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
        broken = [f"{trial.name}: {self.errors[trial.name]}" for trial in self.having("broken")]
        left = len(broken) - _MAX_ERRORS
        more = [f"and {left} more, see {str(self.path / 'errors')!r}"] if left > 0 else []
        return "\n".join([f"{len(self.trials)} runs in {str(self.path)!r}: {parts}", *broken[:_MAX_ERRORS], *more])

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(max_rows=_MAX_ROWS))


def trials_of(path: Path, config: ExperimentConfig) -> tuple[Trial, ...]:
    """The trials of a plan, in the order of variants, then seeds."""
    trials = []
    for described in config.variants:
        variant = Variant(described["objective"], dict(described["grid"]), described["label"])
        for seed in config.seeds:
            name = trial_name(variant.objective, variant.grid, seed)
            trials.append(Trial(variant, seed, name, RunFolder(path / "runs" / name)))
    return tuple(trials)


def read_experiment(path: str | Path) -> Experiment:
    """The experiment in a folder, while it runs or afterwards.

    Raises:
        RunError: the folder contains no experiment, or ``experiment.json`` is damaged.
    """
    path = Path(path)
    return experiment_at(path, read_plan(path), finish=None)


def read_plan(path: Path) -> ExperimentConfig:
    """``experiment.json``.

    Raises:
        RunError: see `read_experiment`.
    """
    try:
        return ExperimentConfig(**read_json(path / "experiment.json"))
    except RunError as error:
        raise RunError(
            str(error).replace("not a run folder, or a run that", "not an experiment, or one that")
        ) from None
    except ValueError as error:
        raise RunError(f"{str(path / 'experiment.json')!r} has another format: {error}") from None


def begin(path: Path, config: ExperimentConfig) -> None:
    """Write the plan of a new experiment, or one that extends the plan in the folder.

    Raises:
        RunError: the folder contains something else, or an experiment that this plan does not extend.
    """
    if not (path / "experiment.json").exists():
        held = sorted(item.name for item in path.iterdir() if item.name != "lock" and not item.name.startswith("."))
        if held:
            raise RunError(f"{str(path)!r} contains {held[0]!r} and no experiment; name an empty or a new folder")
    else:
        old = read_plan(path)
        if old == config:
            return
        where = f"the experiment in {str(path)!r}"
        key = first_difference(old.data, config.data, "data")
        if key is not None:
            raise RunError(f"{where} has other data: {key}; name a new folder")
        if old.fingerprint != config.fingerprint:
            raise RunError(
                f"the data have changed since {where} began, when their fingerprint was {old.fingerprint}; name a new "
                "folder"
            )
        if old.ensemble != config.ensemble:
            raise RunError(
                f"{where} was begun with ensemble={old.ensemble}, whose results agree with those of the other only to "
                f"rounding; pass ensemble={old.ensemble} ({'with' if old.ensemble else 'no'} --ensemble), or name a "
                "new folder"
            )
        _require_all("grid key", tuple(old.grid), tuple(config.grid), where)
        _require_all("grid key", tuple(config.grid), tuple(old.grid), "this call")
        _require_all("objective", old.objectives, config.objectives, where)
        _require_all("seed", old.seeds, config.seeds, where)
        for name, values in old.grid.items():
            _require_all(f"value of {name}", values, config.grid[name], where)
        new = {variant["label"]: variant for variant in config.variants}
        for variant in old.variants:
            now = new[variant["label"]]
            key = first_difference(variant["model"], now["model"], "model")
            key = key or first_difference(variant["fit"], now["fit"], "fit")
            if key is not None:
                raise RunError(f"{where} has other settings: {key}; name a new folder")
    write_json(path / "experiment.json", config.model_dump(mode="json"))


def _require_all(kind: str, old: Sequence[Any], new: Sequence[Any], where: str) -> None:
    missing = [value for value in old if value not in new]
    if missing:
        raise RunError(f"{where} has the {kind} {missing[0]!r} as well; name it too, plans can only be extended")


def experiment_at(path: Path, config: ExperimentConfig, finish: Finish | None) -> Experiment:
    """The trials of a plan with their status; those that ``finish`` has not processed are not done."""
    trials = trials_of(path, config)
    status: dict[str, Status] = {}
    errors: dict[str, str] = {}
    for trial in trials:
        with suppress(RunError):
            errors[trial.name] = read_json(error_file(path, trial.name))["error"]
        if is_done(trial.folder, finish):
            status[trial.name] = "done"
            errors.pop(trial.name, None)
        elif is_held(lock_file(path, trial.name)):
            status[trial.name] = "running"
        elif trial.name in errors:
            status[trial.name] = "broken"
        else:
            status[trial.name] = "half-finished" if trial.folder.config_file.exists() else "waiting"
    return Experiment(path, config, trials, status, errors)


def error_file(path: Path, name: str) -> Path:
    """The error of a broken trial."""
    return path / "errors" / f"{name}.json"


def lock_file(path: Path, name: str) -> Path:
    """Locked by the process that fits a trial; contains its number and host."""
    return path / "locks" / f"{name}.lock"


def record_file(folder: RunFolder) -> Path:
    """Record of a run that is done: digest of the weights, identity of ``finish``, and the files that it wrote."""
    return folder.path / "state" / "finished.json"


def recorded_as[F: Callable[..., Any]](name: str) -> Callable[[F], F]:
    """Decorator: the name under which experiments record a function of `Finish`, wherever it is defined.

    Experiments in which the function was recorded stay done when it moves to another module.
    """

    def decorate(function: F) -> F:
        function.recorded_name = name  # type: ignore[attr-defined]
        return function

    return decorate


def identity(finish: Finish | None) -> str | None:
    """Name and options of a function of `Finish`, so that a change of them is noticed."""
    if finish is None:
        return None
    if isinstance(finish, functools.partial):
        options = [repr(value) for value in finish.args]
        options += [f"{key}={value!r}" for key, value in sorted(finish.keywords.items())]
        return f"{identity(finish.func)}({', '.join(options)})"
    return getattr(finish, "recorded_name", f"{finish.__module__}.{finish.__qualname__}")


def sound_weights(folder: RunFolder) -> str | None:
    """`RunFolder.weights_digest` after reading all weights; ``None`` where they are absent or damaged."""
    try:
        read_tensors(folder.model_file, "model")
    except RunError:
        return None
    return folder.weights_digest()


def measured_files(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of each file that `Finish` wrote into a run folder, by its name."""
    fitted = {folder.config_file.name, folder.model_file.name, folder.history_file.name}
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.path.iterdir())
        if file.is_file() and file.name not in fitted and not file.name.startswith(("events.", "."))
    }


def is_done(folder: RunFolder, finish: Finish | None) -> bool:
    """Whether the run was fitted and processed by ``finish`` (where given), and no file was lost since."""
    try:
        record = read_json(record_file(folder))
    except RunError:
        return False
    if record["weights"] != sound_weights(folder) or (finish is not None and record["finish"] != identity(finish)):
        return False
    measured = measured_files(folder)
    return all(measured.get(name) == digest for name, digest in record["files"].items())
