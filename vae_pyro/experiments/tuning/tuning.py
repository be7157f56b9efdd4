"""`tune`: a search over the settings of a fit by Optuna, with validation data as criterion, shared by processes.

A search is a folder. ``search.json`` describes it, ``journal.log`` is Optuna's journal, ``trials/0007`` is an ordinary
run folder, ``best.json`` contains the best settings for ``vae-pyro fit --config``. Processes that are given the same
folder share its trials; a trial whose process died is continued by the next one, with its number and its parameters.

**The criterion** is the ELBO on the validation data, at the best epoch of a trial: the plain ELBO for every objective
and weight of the KL, so that objectives and betas can be compared. It is a lower bound of log p(x): it prefers models
whose guide is close to the posterior, and a beta above 1 only where this improves the plain ELBO. It is not the
criterion for a beta that serves another purpose, such as disentanglement. Epochs of the KL warm-up do not count, as in
`vae_pyro.fit`. The test data are not used.

References:
    Akiba et al. 2019, Optuna: a next-generation hyperparameter optimization framework. arXiv:1907.10902
    Bergstra et al. 2011, Algorithms for hyper-parameter optimization (the tree-structured Parzen estimator), NeurIPS 24
    Golovin et al. 2017, Google Vizier: a service for black-box optimization (median stopping).
    doi:10.1145/3097983.3098043
    Li et al. 2018, Hyperband, JMLR 18. arXiv:1603.06560
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from vae_pyro.core.files import RunError, write_atomically, write_json
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.experiments.plan import mixed_measures
from vae_pyro.experiments.tuning.progress import search_progress
from vae_pyro.experiments.tuning.search import FORMAT, Search, read_plan, read_search, space_of
from vae_pyro.experiments.tuning.space import WAY_OUT, Dimension, parse_space
from vae_pyro.experiments.tuning.study import next_trial, open_study, quiet, search_lock
from vae_pyro.experiments.tuning.trial import run_trial, trial_settings
from vae_pyro.models.config import VAEConfig
from vae_pyro.parallel.locks import locked
from vae_pyro.parallel.signals import FitInterruptedError
from vae_pyro.parallel.tasks import Backend, WorkInterruptedError, map_tasks
from vae_pyro.training.config import FitConfig
from vae_pyro.training.resume import FREE
from vae_pyro.training.settings import Settings, assemble


class SearchInterruptedError(FitInterruptedError):
    """A signal ended the search; the checkpoints of its trials are kept."""

    def __init__(self, signum: int, out: Path) -> None:
        super().__init__(signum, out)
        self.args = (f"{str(self).partition(';')[0]}; the same call continues the search in {str(out)!r}",)


def tune(
    out: str | Path,
    source: str,
    *,
    space: Sequence[str],
    num_trials: int = 30,
    preset_name: str | None = None,
    file: Path | None = None,
    assignments: Sequence[tuple[Sequence[str], Any]] = (),
    seed: int | None = None,
    num_random: int = 10,
    prune: bool = True,
    num_unpruned: int = 5,
    num_workers: int = 1,
    backend: Backend = "loky",
    address: str | None = None,
    threads: int = 1,
    progress: bool | None = None,
) -> Search:
    """Search for the settings with the highest validation ELBO; the criterion is described in the module.

    The same call again, and several at once, also on several machines that share the folder and its locks, continue
    until there are ``num_trials`` trials in all. In one process the search depends on the seed alone, interrupted or
    not; in several, also on the order in which trials end.

    Pruning stops a trial whose best epoch so far is below the median of the complete trials after the same number of
    epochs, once a tenth of the epochs are over. It assumes that learning curves seldom cross after that: settings that
    start slowly (low learning rates, long schedules, a warm-up of the KL) are at a disadvantage, and where the best
    setting lies at such an edge, ``prune=False`` verifies it. The median rule is preferred to Hyperband because it
    requires no sequence of budgets, for which a few dozen trials of a few dozen epochs are too few, and lets every
    competitive trial finish.

    Args:
        out: folder of the search.
        source: name or path of the data.
        space: dimensions of the search, see `vae_pyro.experiments.tuning.space.parse_space`.
        num_trials: total number of trials, including pruned and failed ones.
        preset_name: settings that all trials share, as `vae_pyro.training.settings.assemble` takes them; likewise
            ``file`` and ``assignments``. Where they set no ``patience``, a trial runs through all epochs and keeps the
            best weights.
        seed: seed of sampler, weights and fits; that of the settings by default.
        num_random: number of trials drawn at random before the sampler (TPE) uses the results.
        prune: stop unpromising trials early.
        num_unpruned: number of complete trials with a value at an epoch before a trial can be pruned there.
        num_workers: number of processes; see `vae_pyro.parallel.tasks.map_tasks` for ``backend``, ``address`` and
            ``threads``.
        progress: show a live line; by default where standard error is a terminal.

    Returns:
        The search. ``out`` also contains ``best.json``.

    Raises:
        ValueError: an impossible space or setting, a device that does not exist, no validation data, or no trial was
            completed.
        RunError: ``out`` contains something else or another search, or a worker could not continue.
        SearchInterruptedError: SIGINT or SIGTERM; the same call continues.
    """
    path = Path(out)
    numbers = {"num_trials": num_trials, "num_workers": num_workers, "num_random": num_random,
               "num_unpruned": num_unpruned}  # fmt: skip
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    dimensions = [parse_space(text) for text in space]
    given = [*assignments] if seed is None else [*assignments, (["seed"], seed)]
    settings = assemble(source, preset_name=preset_name, file=file, assignments=given)
    plan = _plan(settings, dimensions, {"num_random": num_random, "prune": prune, "num_unpruned": num_unpruned})
    num_workers = min(num_workers, num_trials)  # others would have nothing to do
    alone = num_workers == 1 and backend in ("loky", "sequential")
    if alone:
        settings.fit.torch_device()  # refuse a missing device before the folder is created
    with quiet():
        _begin(path, plan)
        with search_progress(path, num_trials, show=progress):
            try:
                if alone:
                    _work(path, num_trials, plan, settings.data, 0)
                else:
                    work = partial(_work, path.absolute(), num_trials, plan, None)
                    outcomes = map_tasks(
                        work, range(num_workers), backend=backend, num_workers=num_workers, threads=threads,
                        address=address,
                    )  # fmt: skip
                    broken = [outcome.error for outcome in outcomes if outcome.error is not None]
                    if broken:
                        raise RunError(f"a worker of the search stopped: {broken[0]}; the same call continues it")
            except (FitInterruptedError, WorkInterruptedError) as stopped:
                raise SearchInterruptedError(stopped.signum, path) from None
        with locked(search_lock(path, "best")):  # the last to write is the last to have read the search
            search = read_search(path)
            content = json.dumps(search.settings(), indent=2) + "\n"
            write_atomically(path / "best.json", content.encode())
    return search


def _plan(settings: Settings, space: Sequence[Dimension], rest: dict[str, Any]) -> dict[str, Any]:
    """Content of ``search.json``.

    Raises:
        ValueError: settings with which no trial can be fitted.
    """
    if not space:
        raise ValueError(f"space is empty: there is nothing to search; {WAY_OUT}")
    if len(settings.data.validation) == 0:
        raise ValueError("a search requires validation data, and there are none; set validation_fraction above 0")
    if settings.fit.devices * settings.fit.num_nodes > 1:
        raise ValueError(
            f"devices={settings.fit.devices} and num_nodes={settings.fit.num_nodes} distribute a single fit, and the "
            "trials of a search run side by side: set both to 1 and num_workers instead"
        )
    taken: dict[tuple[str, ...], Dimension] = {}
    for dimension in space:
        for path in (dimension.path, dimension.path[:2]) if dimension.choice else (dimension.path,):
            other = taken.setdefault(path, dimension)
            if other is not dimension and (path == dimension.path or dimension.choice != other.choice):
                raise ValueError(f"--space {other.text!r} and {dimension.text!r} set the same thing; keep one of them")
    model = settings.model.model_dump(mode="json")
    if VAEConfig(**{**model, "decoder": None}).decoder == settings.model.decoder:
        model["decoder"] = None  # it mirrors the encoder of each trial
    plan = {
        "format": FORMAT,
        "space": [dimension.text for dimension in space],
        "model": model,
        "fit": settings.fit.planned(len(settings.data.train)).model_dump(mode="json"),
        "data": settings.data.config.model_dump(mode="json"),
        "seed": settings.seed,
        "facts": settings.data.facts.to_json(),
        **rest,
    }
    _check(plan, space)
    return plan


def _check(plan: Mapping[str, Any], space: Sequence[Dimension]) -> None:
    """Refuse a choice or an end of a range that can never be set, and likelihoods whose ELBOs cannot be compared."""
    models: list[tuple[str, VAEConfig]] = []
    for dimension in space:
        above = [other for other in space if other.path == dimension.path[:-1]]
        for value in dimension.ends():
            refused: list[ValueError] = []
            found = 0
            for values in product(*(one.ends() for one in above)):
                params = {one.name: end for one, end in zip((dimension, *above), (value, *values), strict=True)}
                chosen = [one for one in space if one.choice or one.name in params]
                try:
                    model, _ = trial_settings(plan, chosen, params)
                except ValueError as error:
                    refused.append(error)
                    continue
                found += 1
                models.append((f"likelihood {model.likelihood.name!r}", model))
            if not found:
                raise ValueError(f"--space {dimension.text!r}: {value} can never be set: {refused[0]}")
    clash = mixed_measures(models)
    if clash is not None:
        raise ValueError(f"{clash}; run a search for each")


def _begin(path: Path, plan: dict[str, Any]) -> None:
    if path.exists() and not path.is_dir():
        raise RunError(f"{str(path)!r} is a file; name a folder")
    held = sorted(item.name for item in path.iterdir()) if path.exists() else []
    # Another process may be starting the same search.
    held = [name for name in held if name != "locks" and not name.startswith(".search.json.")]
    if held and "search.json" not in held:
        raise RunError(f"{str(path)!r} contains {held[0]!r} and no search; name an empty or a new folder")
    (path / "locks").mkdir(parents=True, exist_ok=True)
    with locked(search_lock(path, "search")):
        if not (path / "search.json").exists():
            write_json(path / "search.json", plan)
            return
        before = read_plan(path)
    for section in ("space", "model", "fit", "data", "seed", "num_random", "prune", "num_unpruned"):
        old, new = before[section], json.loads(json.dumps(plan[section]))
        if isinstance(old, dict):
            keys = [key for key in new if old.get(key) != new[key] and key not in FREE.get(section, ())]
            if not keys:
                continue
            section, old, new = f"{section} {keys[0]}", old.get(keys[0]), new[keys[0]]  # noqa: PLW2901
        if old != new:
            raise RunError(
                f"the search in {str(path)!r} has {section} = {old!r}, this call has {new!r}; continue it with its own "
                "settings, or name another folder"
            )
    if before["facts"]["fingerprint"] != plan["facts"]["fingerprint"]:
        raise RunError(f"the data have changed since the search in {str(path)!r} began; name another folder")


def _work(path: Path, num_trials: int, call: Mapping[str, Any], data: Dataset | None, number: int) -> None:
    """Run trials until there are enough.

    Args:
        path: folder of the search.
        num_trials: total number of trials.
        call: the plan of this call, which may differ from that of the folder in `FREE`.
        data: already loaded, or ``None``.
        number: of the worker.

    Raises:
        ValueError: the device does not exist.
        RunError: other data, or the folder of a trial cannot be used.
    """
    plan = read_plan(path)
    for section, keys in FREE.items():
        plan[section] |= {key: call[section][key] for key in keys}
    FitConfig(**plan["fit"]).torch_device()  # otherwise every trial would fail
    if data is None:
        data = DataConfig(**plan["data"]).load()
    if data.facts.fingerprint != plan["facts"]["fingerprint"]:
        raise RunError(f"the data have changed since the search in {str(path)!r} began; start another search")
    with quiet():
        study = open_study(path, plan)
        while (taken := next_trial(study, path, space_of(plan), num_trials)) is not None:
            trial, lock = taken
            with lock:
                run_trial(study, trial, path, plan, data)
