"""A search as read from its folder, on which other processes may work: its trials, the best one, the table.

``search.json`` describes the search, ``journal.log`` is Optuna's journal, ``trials/0007`` an ordinary run folder, with
the validation results of its weights in ``validation.safetensors``, and ``best.json`` contains the settings of the best
trial for ``vae-pyro fit --config``.
"""

from collections.abc import Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vae_pyro.core.files import RunError, read_json, read_tensors, write_tensors
from vae_pyro.evaluation.evaluation import Evaluation
from vae_pyro.experiments.tuning.space import Dimension, parse_space
from vae_pyro.experiments.tuning.study import open_study, quiet, search_lock, trial_lock
from vae_pyro.parallel.locks import is_held, locked
from vae_pyro.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "vae_pyro search 1"
# Trials that a search prints, and the width of a line.
_MAX_ROWS, _WIDTH = 20, 120
# Names in stored files of attributes of `Evaluation` that have been renamed since.
_STORED_NAMES = {"num_draws": "num_samples"}


@dataclass(frozen=True)
class TuningTrial:
    """One trial of a search.

    Attributes:
        number: counted from 0.
        state: ``complete``, ``pruned``, ``failed``, ``running``, or ``stopped`` where its process died.
        params: values by the names of the dimensions; those of a choice are texts, as in ``--set``.
        value: validation ELBO at the best epoch, nats per datum; ``None`` before the first epoch that counts.
        curve: validation ELBO by epoch, without the epochs of the KL warm-up.
        seconds: duration of its epochs; ``None`` until it has ended.
        failure: the error of a failed trial.
        processes: ``host:pid`` of each process that worked on it.
        folder: its run folder.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    value: float | None
    curve: Mapping[int, float]
    seconds: float | None
    failure: str | None
    processes: tuple[str, ...]
    folder: RunFolder

    @property
    def best_epoch(self) -> int | None:
        """Epoch of `value`."""
        return max(self.curve, key=lambda epoch: (self.curve[epoch], -epoch)) if self.curve else None

    def validation(self) -> Evaluation | None:
        """Validation results of the stored weights, datum by datum; ``None`` where the trial is not complete.

        Raises:
            RunError: the file is absent or damaged.
        """
        if self.state != "complete":
            return None
        tensors, info = read_tensors(validation_file(self.folder), "validation")
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        present = {stored: name for name, stored in _STORED_NAMES.items()}
        return Evaluation(**arrays, **{present.get(name, name): value for name, value in info.items()})


@dataclass(frozen=True, repr=False)
class Search:
    """A search as read from its folder.

    Attributes:
        path: the folder.
        space: dimensions of the search.
        trials: by number.
        plan: the rest of ``search.json``: settings that all trials share, facts of the data, sampler and pruner.
    """

    path: Path
    space: tuple[Dimension, ...]
    trials: tuple[TuningTrial, ...]
    plan: Mapping[str, Any]

    def of_state(self, *states: str) -> list[TuningTrial]:
        """Trials in one of these states."""
        return [trial for trial in self.trials if trial.state in states]

    @property
    def best(self) -> TuningTrial:
        """The complete trial with the highest validation ELBO, the first of equals.

        Raises:
            ValueError: no trial is complete; the message gives the first failure.
        """
        complete = self.of_state("complete")
        if complete:
            return max(complete, key=lambda trial: (trial.value, -trial.number))
        failed = self.of_state("failed")
        if failed:
            params = ", ".join(f"{name}={shown(param)}" for name, param in failed[0].params.items())
            raise ValueError(
                f"no trial of {str(self.path)!r} was completed, {len(failed)} of {len(self.trials)} failed; the first "
                f"({params}): {failed[0].failure}"
            )
        raise ValueError(
            f"no trial of {str(self.path)!r} is complete yet; continue the search with the same call of tune"
        )

    def settings(self, trial: TuningTrial | None = None) -> dict[str, Any]:
        """Model, fit, data and seed of a trial, by default the best, for `vae_pyro.training.settings.assemble`."""
        config = (self.best if trial is None else trial).folder.config()
        return {key: config[key] for key in ("model", "fit", "data", "seed")}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each trial: state, validation ELBO (nats per datum), epochs, seconds, and its parameters."""
        import pandas as pd

        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                "validation_elbo": trial.value,
                "best_epoch": trial.best_epoch,
                "last_epoch": max(trial.curve, default=None),
                "seconds": trial.seconds,
                **{dimension.name: trial.params.get(dimension.name) for dimension in self.space},
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows).set_index("trial")

    def __repr__(self) -> str:
        names = ", ".join(dimension.name for dimension in self.space)
        return f"<Search: {len(self.trials)} trials over {names} in {str(self.path)!r}>"

    def __str__(self) -> str:
        names = [dimension.name for dimension in self.space]
        rows = [["trial", "state", "validation ELBO", "epoch", *names]]
        ordered = sorted(self.trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0)))
        for trial in sorted(ordered[:_MAX_ROWS], key=lambda trial: trial.number):
            value = "" if trial.value is None else f"{trial.value:.4f}"
            cells = [str(trial.number), trial.state, value, str(trial.best_epoch or "")]
            rows.append([*cells, *(shown(trial.params.get(name, "")) for name in names)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines = [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines]
        if len(self.trials) > _MAX_ROWS:
            lines.append(f"the {_MAX_ROWS} best of {len(self.trials)} trials; to_dataframe() has all")
        if self.of_state("complete"):
            lines.append(f"best: trial {self.best.number}, {self.best.folder.path}; chosen on validation data")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(max_rows=_MAX_ROWS))


def shown(param: Any) -> str:
    """A parameter as tables show it."""
    return f"{param:.4g}" if isinstance(param, float) else str(param)


def trial_folder(path: Path, number: int) -> RunFolder:
    """The run folder of a trial."""
    return RunFolder(path / "trials" / f"{number:04d}")


def validation_file(run: RunFolder) -> Path:
    """File with the validation results of a complete trial, datum by datum."""
    return run.path / "validation.safetensors"


def write_validation(run: RunFolder, validation: Evaluation) -> None:
    """Write the validation results of a complete trial."""
    values = vars(validation)
    arrays = {name: torch.from_numpy(value) for name, value in values.items() if hasattr(value, "shape")}
    info = {_STORED_NAMES.get(name, name): value for name, value in values.items() if name not in arrays}
    write_tensors(validation_file(run), arrays, "validation", info)


def read_plan(path: Path) -> dict[str, Any]:
    """Content of ``search.json``.

    Raises:
        RunError: the folder contains no search, or a damaged one.
    """
    file = path / "search.json"
    if not file.exists():
        raise RunError(f"no search.json in {str(path)!r}: not the folder of a search")
    plan = read_json(file)
    if plan.get("format") != FORMAT:
        raise RunError(f"{str(file)!r} has format {plan.get('format')!r}, expected {FORMAT!r}")
    return plan


def read_search(path: str | Path) -> Search:
    """The search in a folder, while other processes work on it or afterwards.

    Raises:
        RunError: see `read_plan`.
    """
    path = Path(path)
    plan = read_plan(path)
    with quiet(), ExitStack() as held:
        study = open_study(path, plan)
        trials, idle = study.get_trials(deepcopy=False), set()
        running = [trial.number for trial in trials if not trial.state.is_finished()]
        if running:
            # The lock of a trial shows whether a process works on it; no process may take one meanwhile. A trial may
            # end in between: one that is free and unfinished afterwards has stopped.
            held.enter_context(locked(search_lock(path, "search")))
            idle = {number for number in running if _is_free(path, number)}
            trials = study.get_trials(deepcopy=False)
        return Search(path, space_of(plan), tuple(_read_trial(path, trial, idle) for trial in trials), plan)


def _is_free(path: Path, number: int) -> bool:
    return not is_held(trial_lock(path, number))


def _read_trial(path: Path, trial: Any, idle: Set[int]) -> TuningTrial:
    state = {"PRUNED": "pruned", "COMPLETE": "complete"}.get(trial.state.name, "running")
    if state == "pruned" and "failure" in trial.user_attrs:
        state = "failed"
    if state == "running" and trial.number in idle:
        state = "stopped"
    curve = dict(sorted(trial.intermediate_values.items()))
    return TuningTrial(
        number=trial.number,
        state=state,
        params=dict(trial.params),
        value=trial.value if state == "complete" else max(curve.values(), default=None),
        curve=curve,
        seconds=trial.user_attrs.get("seconds"),
        failure=trial.user_attrs.get("failure"),
        processes=tuple(trial.user_attrs.get("processes", ())),
        folder=trial_folder(path, trial.number),
    )


def space_of(plan: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a plan, in its order."""
    return tuple(parse_space(text) for text in plan["space"])
