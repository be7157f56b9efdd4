"""A search as its folder holds it."""

from pathlib import Path

import pytest

from tests.vae_pyro.experiments.tuning.quick_search import quick
from vae_pyro.experiments.tuning import search as search_module
from vae_pyro.experiments.tuning import tuning
from vae_pyro.experiments.tuning.search import Search, read_search
from vae_pyro.experiments.tuning.study import open_study, quiet
from vae_pyro.parallel.locks import lock
from vae_pyro.training.settings import assemble


def test_the_best_trial_has_the_highest_validation_elbo_of_its_history(searched: Search) -> None:
    complete = searched.of_state("complete")
    assert len(searched.trials) == 5
    assert searched.best.value == max(trial.value for trial in complete if trial.value is not None)
    for trial in complete:
        history = [row["validation_elbo"] for row in trial.folder.read_history()]
        assert trial.value == max(history)
        assert list(trial.curve.values()) == history
        assert trial.best_epoch == history.index(max(history)) + 1
        assert trial.seconds == pytest.approx(sum(row["seconds"] for row in trial.folder.read_history()))
    assert str(searched).splitlines()[0].split()[:2] == ["trial", "state"]
    assert str(searched.path / "trials" / f"{searched.best.number:04d}") in str(searched)


def test_the_best_settings_are_a_file_that_a_fit_takes(searched: Search) -> None:
    again = assemble("digits", file=searched.path / "best.json")
    config = searched.best.folder.config()
    assert again.model.model_dump(mode="json") == config["model"]
    assert again.fit.model_dump(mode="json") == config["fit"]
    assert again.seed == config["seed"] == 3
    assert again.data.facts.fingerprint == config["facts"]["fingerprint"]


def test_a_trial_that_ends_while_it_is_looked_at_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = quick(tmp_path / "s", num_trials=1)
    with quiet():
        study = open_study(search.path, search.plan)
        asked = study.ask({dimension.name: dimension.distribution() for dimension in search.space})

        def ends(path: Path, number: int) -> bool:
            study.tell(asked, -1.0)
            return True

        monkeypatch.setattr(search_module, "_is_free", ends)
        assert [trial.state for trial in read_search(search.path).trials] == ["complete", "complete"]


def test_the_best_settings_are_written_by_who_read_them_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and writing are one under a lock: no process overwrites a better trial with what it read before."""
    held = []

    def reading(path: Path) -> Search:
        held.append(lock(path / "locks" / "best", wait=False) is None)
        return read_search(path)

    monkeypatch.setattr(tuning, "read_search", reading)
    quick(tmp_path / "s", num_trials=1)
    assert held == [True]
