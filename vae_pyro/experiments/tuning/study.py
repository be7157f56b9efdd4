"""The Optuna study of a search: journal, sampler and pruner, with locks that are released when a process dies.

References:
    Akiba et al. 2019, Optuna: a next-generation hyperparameter optimization framework. arXiv:1907.10902
    Bergstra et al. 2011, Algorithms for hyper-parameter optimization (the tree-structured Parzen estimator), NeurIPS 24
    Falkner, Klein & Hutter 2018, BOHB: robust and efficient hyperparameter optimization at scale (one density over all
    settings instead of one for each). arXiv:1807.01774
    Golovin et al. 2017, Google Vizier: a service for black-box optimization (median stopping).
    doi:10.1145/3097983.3098043
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any
from zlib import crc32

from vae_pyro.core.isolation import derive_seed
from vae_pyro.experiments.tuning.space import Dimension
from vae_pyro.parallel.locks import lock, locked

_STUDY = "search"
_SAMPLER_STREAM = 6
# Share of the epochs during which no trial is pruned, since learning curves still cross.
_GRACE = 0.1


def search_lock(path: Path, name: str) -> Path:
    """A lock of the search as a whole: ``search``, ``journal`` or ``best``."""
    return path / "locks" / name


def trial_lock(path: Path, number: int) -> Path:
    """The lock of a trial, held by the process that works on it."""
    return path / "locks" / f"{number:04d}"


class _JournalLock:
    """Lock of Optuna's journal; unlike Optuna's own locks, it is released when its process is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: ExitStack | None = None

    def acquire(self) -> bool:
        self._held = lock(search_lock(self.path, "journal"), wait=True)
        _mend(self.path / "journal.log")
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()


def _mend(journal: Path) -> None:
    """Remove a line that a killed process has not finished, which would corrupt the next one."""
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            os.truncate(journal, file.read().rfind(b"\n") + 1)


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna with its log messages off; the log level is restored.

    Raises:
        ValueError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError("tune requires the package 'optuna'; pip install 'vae_pyro[scale]'") from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def open_study(path: Path, plan: Mapping[str, Any]) -> Any:
    """The study in the journal of a folder, created where there is none; ``plan`` is the content of ``search.json``."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    backend = JournalFileBackend(str(path / "journal.log"), lock_obj=_JournalLock(path))
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if plan["prune"]:
        grace = ceil(_GRACE * plan["fit"]["epochs"])
        # Trials that ran out of patience have no value at later epochs; the minimum number holds there as well.
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=plan["num_unpruned"], n_warmup_steps=grace, n_min_trials=plan["num_unpruned"]
        )
    storage = optuna.storages.JournalStorage(backend)
    options: dict[str, Any] = {"sampler": _sampler(plan["seed"], plan["num_random"]), "pruner": pruner}
    try:
        return optuna.load_study(study_name=_STUDY, storage=storage, **options)
    except KeyError:  # creating an existing study would add a line to the journal
        return optuna.create_study(
            study_name=_STUDY, storage=storage, direction="maximize", load_if_exists=True, **options
        )


def _sampler(seed: int, num_random: int) -> Any:
    from optuna.samplers import BaseSampler, TPESampler

    def tpe(*stream: int) -> TPESampler:
        # One density over all settings, since they interact (learning rate and width, say). Running trials count as
        # bad, so that processes do not try the same.
        return TPESampler(
            n_startup_trials=num_random, seed=derive_seed(seed, _SAMPLER_STREAM, *stream) % 2**32, multivariate=True,
            constant_liar=True,
        )  # fmt: skip

    class SeededTPE(BaseSampler):
        """TPE with a generator for each trial, seeded by its number, so that a stopped search continues identically."""

        inner: TPESampler

        def before_trial(self, study: Any, trial: Any) -> None:
            self.inner = tpe(trial.number)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self.inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self.inner.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            # A generator for each setting as well: a process may have died between two settings.
            own = tpe(trial.number, crc32(param_name.encode()))
            return own.sample_independent(study, trial, param_name, param_distribution)

    return SeededTPE()


def next_trial(study: Any, path: Path, space: Sequence[Dimension], num_trials: int) -> tuple[Any, ExitStack] | None:
    """A trial that no process works on, with its lock: one whose process died, or a new one while there are too few.

    Returns:
        Optuna's trial with all its parameters drawn, and its lock, held until it is closed; ``None`` where no trial is
        left to start.
    """
    from optuna import Trial

    distributions = {dimension.name: dimension.distribution() for dimension in space}
    with locked(search_lock(path, "search")), ExitStack() as stack:
        trials = study.get_trials(deepcopy=False)
        for known in trials:
            held = None if known.state.is_finished() else lock(trial_lock(path, known.number), wait=False)
            if held is not None:
                stack.enter_context(held)
                trial = Trial(study, known._trial_id)
                for name, distribution in distributions.items():  # draws those that are missing
                    trial._suggest(name, distribution)
                stack.pop_all()  # the caller holds the lock
                return trial, held
        if len(trials) >= num_trials:
            return None
        held = lock(trial_lock(path, len(trials)), wait=True)
        assert held is not None
        stack.enter_context(held)
        trial = study.ask(distributions)
        stack.pop_all()
        return trial, held
