"""One trial of a search: its settings, its fit, and the values that it reports to the pruner.

A trial that a process left unfinished continues from its last checkpoint; reported values are not reported again.
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

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.registry import parse_choice
from vae_pyro.data.dataset import Dataset
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.experiments.tuning.search import space_of, trial_folder, write_validation
from vae_pyro.experiments.tuning.space import Dimension
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.fitting import fit
from vae_pyro.training.loop import VALIDATION_STREAM
from vae_pyro.training.settings import assign

# Processes that may end at the same step of a trial before the trial fails.
_TRIES = 3


def trial_settings(
    plan: Mapping[str, Any], space: Sequence[Dimension], params: Mapping[str, Any]
) -> tuple[VAEConfig, FitConfig]:
    """Model and fit of a trial with these parameters.

    Args:
        plan: content of ``search.json``.
        space: its dimensions; those without a parameter keep the value of the plan.
        params: values by the names of the dimensions.

    Raises:
        ValueError: settings that do not exist or exclude each other.
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
    # Trials are compared at their best epoch, so they keep the weights of that epoch.
    return VAEConfig(**tree["model"]), config if config.patience else config.replace(patience=config.epochs)


class Watch:
    """Callback of `vae_pyro.fit` that reports the epochs of a trial, and stops it where the pruner decides so.

    Attributes:
        reported: validation ELBO by epoch, including those of earlier processes.
        pruned: whether the trial was stopped.
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
        # Epochs since the last checkpoint that a killed process had reported are repeated; the pruner has seen them.
        last = self.config.length(self.num_train).epochs
        self.pruned = self._last <= epoch < last and bool(self.trial.should_prune())
        return self.pruned


def run_trial(study: Any, trial: Any, path: Path, plan: Mapping[str, Any], data: Dataset) -> None:
    """Fit or continue a trial, and record its outcome in the study.

    A trial fails where its settings are impossible or memory does not suffice. A process that was killed for its memory
    cannot record this: a trial fails as well after three processes have ended at the same step.

    Raises:
        RunError: its folder cannot be used.
        FitInterruptedError: a signal; the trial stays unfinished.
    """
    from optuna.trial import TrialState

    known = trial.storage.get_trial(trial._trial_id)
    run = trial_folder(path, trial.number)
    if run.path.exists() and not run.config_file.exists():  # killed at the start
        shutil.rmtree(run.path)

    def fail(reason: str) -> None:
        trial.set_user_attr("failure", reason)
        # TPE ignores failed trials, and would propose diverging settings again; it ranks pruned ones behind complete
        # ones.
        study.tell(trial, state=TrialState.PRUNED)

    with _with_advice(trial, run):
        state = _checkpointed(run)
    before, here = known.user_attrs.get("begun", []), [state.get("epoch", 0), state.get("batch", 0)]
    if before[-_TRIES:] == [here] * _TRIES:
        reason = known.user_attrs.get("raised", "killed from outside, out of memory, or a crash of the interpreter")
        fail(f"{_TRIES} processes ended at its epoch {here[0] + 1}: {reason}")
        return
    trial.set_user_attr("begun", [*before, here])
    trial.set_user_attr("processes", [*known.user_attrs.get("processes", []), f"{socket.gethostname()}:{os.getpid()}"])
    try:
        with _with_advice(trial, run):
            value = _value(trial, run, plan, data, state.get("history", []), known.intermediate_values)
    except (RunError, KeyboardInterrupt, OSError):
        trial.set_user_attr("begun", before)  # a further attempt may succeed
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
def _with_advice(trial: Any, run: RunFolder) -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(
            f"trial {trial.number} cannot continue: {error}; remove the folder {str(run.path)!r}, and the same call "
            "starts the trial again"
        ) from None


def _is_memory(error: RuntimeError) -> bool:
    """Whether memory did not suffice, for which torch has no exception class on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "Storage size calculation overflowed")
    )


def _value(
    trial: Any, run: RunFolder, plan: Mapping[str, Any], data: Dataset, done: list[dict[str, float]],
    reported: Mapping[int, float],
) -> float | None:  # fmt: skip
    """Validation ELBO of the best epoch, nats per datum; ``None`` where the trial was pruned."""
    model, config = trial_settings(plan, space_of(plan), trial.params)
    watch = Watch(trial, config, len(data.train), reported)
    if any(watch(row) for row in done):  # killed between its last checkpoint and the pruner's decision
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
            f"{config.kl_cycle}) never ends; shorten it or raise epochs"
        )
    validation = evaluate(
        result.vae, data.validation, num_draws=config.validation_particles,
        seed=derive_seed(plan["seed"], VALIDATION_STREAM),
    )  # fmt: skip
    write_validation(run, validation)
    return result.history[result.best_epoch - 1]["validation_elbo"]


def _checkpointed(run: RunFolder) -> dict[str, Any]:
    """State of the fit in its checkpoint, with the history of the epochs that it will not repeat."""
    if not run.has_checkpoint:
        return {}
    state: dict[str, Any] = run.read_checkpoint()[1]["state"]
    return state
