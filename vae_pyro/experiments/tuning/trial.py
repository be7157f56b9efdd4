"""One trial of a search: its settings, its fit, and what is judged of it while it runs.

A trial that a process left unfinished goes on from its last checkpoint; what it had reported is not reported again.
"""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any

import torch

from vae_pyro.core.files import RunError, read_tensors, write_tensors
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.registry import parse_choice
from vae_pyro.data.dataset import Dataset
from vae_pyro.evaluation.evaluation import Evaluation, evaluate
from vae_pyro.experiments.tuning.search import space_of, trial_folder, validation_file
from vae_pyro.experiments.tuning.space import Dimension
from vae_pyro.models.vae import VAE, VAEConfig
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.fitting import fit
from vae_pyro.training.loop import VALIDATION_STREAM
from vae_pyro.training.settings import assign

# Processes that may end at the same place of a trial before the trial is given up.
_TRIES = 3


def trial_settings(
    plan: Mapping[str, Any], space: Sequence[Dimension], params: Mapping[str, Any]
) -> tuple[VAEConfig, FitConfig]:
    """What a trial with these parameters fits, and how.

    Args:
        plan: what ``search.json`` holds.
        space: its dimensions; those without a parameter stay as the plan has them.
        params: by the names of the dimensions.

    Raises:
        ValueError: settings that do not exist or do not go together.
    """
    tree = {section: deepcopy(dict(plan[section])) for section in ("model", "fit")}
    for dimension in space:
        if dimension.choice is not None:
            section, key = dimension.path[:2]
            now = tree[section].get(key)
            if (parse_choice(now) if isinstance(now, str) else now or {}).get("name") != dimension.choice:
                tree[section][key] = {"name": dimension.choice}
    for dimension in sorted(space, key=lambda dimension: len(dimension.path)):  # a variant before its options
        if dimension.name in params:
            assign(tree, dimension.path, dimension.value(params[dimension.name]))
    config = FitConfig(**tree["fit"])
    # What is chosen is a trial at its best epoch, so these are the weights that it keeps.
    return VAEConfig(**tree["model"]), config if config.patience else config.replace(patience=config.epochs)


class Watch:
    """`fit`'s hook: reports the epochs of a trial, and stops it where the pruner says so.

    Attributes:
        reported: validation ELBO by epoch, those of earlier processes included.
        pruned: whether it has stopped the trial.
    """

    def __init__(self, trial: Any, config: FitConfig, num_train: int, reported: Mapping[int, float]) -> None:
        self.trial, self.config, self.num_train = trial, config, num_train
        self.reported, self.pruned = dict(reported), False
        self._last = max(reported, default=0)

    def __call__(self, row: dict[str, float]) -> bool:
        epoch = int(row["epoch"])
        if not self.config.epoch_counts(epoch, ceil(self.num_train / self.config.batch_size)):
            return False
        if epoch not in self.reported:
            self.reported[epoch] = row["validation_elbo"]
            self.trial.report(row["validation_elbo"], epoch)
        # Epochs that a killed process had reported are repeated since the last checkpoint; they were judged then.
        self.pruned = self._last <= epoch < self.config.epochs and bool(self.trial.should_prune())
        return self.pruned


def run_trial(study: Any, trial: Any, path: Path, plan: Mapping[str, Any], data: Dataset) -> None:
    """Fit a trial, or go on with it, and tell the study what came of it.

    What its settings make impossible, and memory that does not suffice, is the trial's failure. A process that was
    killed for its memory can tell nobody: a trial is given up as well where three processes ended at the same place.

    Raises:
        RunError: its folder cannot be used.
        FitInterruptedError: a signal; the trial stays unfinished.
    """
    from optuna.trial import TrialState

    known = trial.storage.get_trial(trial._trial_id)
    run = trial_folder(path, trial.number)
    if run.path.exists() and not run.config_file.exists():  # killed while it began
        shutil.rmtree(run.path)

    def fail(reason: str) -> None:
        trial.set_user_attr("failure", reason)
        # TPE leaves failed trials out of its model, and would propose what diverged again and again; pruned ones it
        # ranks behind those that were completed.
        study.tell(trial, state=TrialState.PRUNED)

    with _way_out(trial, run):
        state = _checkpointed(run)
    before, here = known.user_attrs.get("begun", []), [state.get("epoch", 0), state.get("batch", 0)]
    if before[-_TRIES:] == [here] * _TRIES:
        reason = known.user_attrs.get("raised", "killed from outside, out of memory, or a crash of the interpreter")
        fail(f"{_TRIES} processes ended at its epoch {here[0] + 1}: {reason}")
        return
    trial.set_user_attr("begun", [*before, here])
    trial.set_user_attr("processes", [*known.user_attrs.get("processes", []), f"{socket.gethostname()}:{os.getpid()}"])
    try:
        with _way_out(trial, run):
            value = _value(trial, run, plan, data, state.get("history", []), known.intermediate_values)
    except (RunError, KeyboardInterrupt, OSError):
        trial.set_user_attr("begun", before)  # nothing that another try would meet again
        raise
    except (ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, RuntimeError) and not _is_memory(error):
            trial.set_user_attr("raised", reason)
            raise
        fail(reason)
    else:
        if value is None:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)


@contextmanager
def _way_out(trial: Any, run: RunFolder) -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(
            f"trial {trial.number} cannot go on: {error}; once the folder {str(run.path)!r} is removed, the same call "
            "begins it anew"
        ) from None


def _is_memory(error: RuntimeError) -> bool:
    """Whether it says that memory does not suffice, for which torch has no class of its own on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "Storage size calculation overflowed")
    )


def _value(
    trial: Any, run: RunFolder, plan: Mapping[str, Any], data: Dataset, done: list[dict[str, float]],
    reported: Mapping[int, float],
) -> float | None:  # fmt: skip
    """The figure that a trial is judged by; ``None`` where it was pruned."""
    model, config = trial_settings(plan, space_of(plan), trial.params)
    watch = Watch(trial, config, len(data.train), reported)
    if any(watch(row) for row in done):  # killed before it was judged by its last checkpoint
        run.write_history(done)
        trial.set_user_attr("seconds", sum(row["seconds"] for row in done))
        return None
    result = fit(
        VAE(model, seed=plan["seed"]), data.train, validation=data.validation, config=config, seed=plan["seed"],
        out=run.path, resume=run.config_file.exists(), data=data, progress=False, on_epoch=watch,
    )  # fmt: skip
    trial.set_user_attr("seconds", sum(row["seconds"] for row in result.history))
    if watch.pruned:
        return None
    if result.best_epoch is None:
        raise ValueError(
            f"no epoch of {config.epochs} counts: the KL warm-up (kl_warmup={config.kl_warmup:g}, kl_cycle="
            f"{config.kl_cycle}) is never over; shorten it or raise epochs"
        )
    figures = evaluate(
        result.vae, data.validation, num_draws=config.validation_particles,
        seed=derive_seed(plan["seed"], VALIDATION_STREAM),
    )  # fmt: skip
    _keep_validation(run, figures)
    return result.history[result.best_epoch - 1]["validation_elbo"]


def _checkpointed(run: RunFolder) -> dict[str, Any]:
    """State of the fit that it will go on from; its history are the epochs that it will not repeat."""
    if not run.checkpoint_file.exists():
        return {}
    state: dict[str, Any] = read_tensors(run.checkpoint_file, "checkpoint")[1]["state"]
    return state


def _keep_validation(run: RunFolder, figures: Evaluation) -> None:
    values = vars(figures)
    arrays = {name: torch.from_numpy(value) for name, value in values.items() if hasattr(value, "shape")}
    info = {name: value for name, value in values.items() if name not in arrays}
    write_tensors(validation_file(run), arrays, "validation", info)
