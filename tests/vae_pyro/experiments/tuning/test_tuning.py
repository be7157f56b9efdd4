"""`tune`: reproducible, chosen by validation ELBO alone, shared between calls, and refused in time."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from tests.vae_pyro.experiments.tuning.quick_search import QUICK, SPACE, quick, table
from vae_pyro.core.files import RunError
from vae_pyro.data.dataset import Dataset
from vae_pyro.experiments.tuning import tuning
from vae_pyro.experiments.tuning.search import Search, read_search
from vae_pyro.experiments.tuning.tuning import SearchInterruptedError
from vae_pyro.training.settings import assemble


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": []}, "nothing to search"),
        ({"space": ["encoder.hiden=4..8"]}, "4 can never be set: .*no option 'hiden'"),
        ({"assignments": [*QUICK, (["fit", "epochs"], 0)]}, "epochs"),
        ({"space": ["objective=elbo,elbow"]}, "elbow can never be set: .*elbow"),
        ({"space": ["latent_dim=0..4"]}, "0 can never be set: .*latent_dim"),
        ({"space": ["latent_dim=2..4", "model.latent_dim=4..6"]}, "set the same thing"),
        ({"space": ["objective=beta:beta=1..4", "objective=elbo,iwae"]}, "set the same thing"),
        ({"space": ["likelihood=gaussian,poisson"]}, "cannot be compared; run a search for each"),
        ({"assignments": [*QUICK, (["data", "validation_fraction"], 0)]}, "set validation_fraction above 0"),
        ({"assignments": [*QUICK, (["fit", "devices"], 2)]}, "set both to 1 and num_workers instead"),
        ({"num_trials": 0}, "num_trials must be at least 1, got 0"),
        ({"num_unpruned": 0}, "num_unpruned must be at least 1, got 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_a_folder_is_made(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quick(tmp_path / "s", **changes)
    assert not (tmp_path / "s").exists()


def test_the_same_seed_gives_the_same_table_and_another_one_does_not(searched: Search, tmp_path: Path) -> None:
    assert table(quick(tmp_path / "a", num_trials=5, num_unpruned=2)) == table(searched)
    other = quick(tmp_path / "b", seed=4, num_trials=1)
    assert other.trials[0].params != searched.trials[0].params


def test_a_search_that_is_continued_is_the_search_that_was_not_interrupted(searched: Search, tmp_path: Path) -> None:
    for number in (1, 3, 5):
        continued = quick(tmp_path / "s", num_trials=number, num_unpruned=2)
        assert len(continued.trials) == number
    assert table(continued) == table(searched)
    before = (tmp_path / "s" / "journal.log").read_bytes()
    quick(tmp_path / "s", num_trials=5, num_unpruned=2)
    assert (tmp_path / "s" / "journal.log").read_bytes() == before  # nothing was left to do


def test_test_data_are_not_touched(tmp_path: Path) -> None:
    """Test values a million times too large change no figure, and reading the test split at all is an error."""
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    first = quick(tmp_path / "a", str(tmp_path / "x.npy"), num_trials=2, space=["latent_dim=1..2", SPACE[1]])
    rows[assemble(str(tmp_path / "x.npy"), assignments=QUICK).data.test.ids.numpy()] *= 1e6  # type: ignore[union-attr]
    np.save(tmp_path / "x.npy", rows)
    second = quick(tmp_path / "b", str(tmp_path / "x.npy"), num_trials=2, space=["latent_dim=1..2", SPACE[1]])
    assert first.plan["facts"]["fingerprint"] != second.plan["facts"]["fingerprint"]
    assert table(first) == table(second)


def test_the_test_split_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = object.__getattribute__

    def guarded(self: Dataset, name: str) -> Any:
        if name == "test":
            raise AssertionError("the test split was read")
        return read(self, name)

    monkeypatch.setattr(Dataset, "__getattribute__", guarded)
    with pytest.raises(AssertionError, match="was read"):
        assemble("digits", assignments=QUICK).data.split("test")
    assert quick(tmp_path / "s", num_trials=2).best.value is not None


@pytest.mark.slow
def test_workers_share_the_trials(tmp_path: Path) -> None:
    search = quick(tmp_path / "s", num_trials=6, num_workers=2)
    assert [len(trial.processes) for trial in search.trials] == [1] * 6
    assert len({trial.processes for trial in search.trials}) == 2
    assert (tmp_path / "s" / "best.json").exists()


def test_an_interruption_says_how_to_go_on(tmp_path: Path) -> None:
    long = [*QUICK, (["fit", "epochs"], 100_000)]

    def interrupt() -> None:
        while not list((tmp_path / "s").glob("trials/*/config.json")):
            time.sleep(0.02)
        time.sleep(0.3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(0.0, interrupt)
    timer.start()
    with pytest.raises(SearchInterruptedError, match="stopped by SIGINT; the same call continues the search in"):
        quick(tmp_path / "s", assignments=long, num_trials=2)
    timer.join()
    assert read_search(tmp_path / "s").trials[0].state == "stopped"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed = 3, this call has 4"),
        ({"space": SPACE[:2]}, "has space = "),
        ({"assignments": [*QUICK, (["fit", "epochs"], 3)]}, "has fit epochs = 2, this call has 3"),
        ({"prune": False}, "has prune = True"),
    ],
)
def test_another_search_is_refused(searched: Search, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        quick(searched.path, **({"num_trials": 5, "num_unpruned": 2} | changes))


def test_each_call_has_its_own_device_and_checkpoints(tmp_path: Path) -> None:
    quick(tmp_path / "s", num_trials=1)
    assignments = [*QUICK, (["fit", "checkpoint_seconds"], 7), (["fit", "device"], "cpu")]
    search = quick(tmp_path / "s", num_trials=2, assignments=assignments)
    first, second = (trial.folder.config()["fit"] for trial in search.trials)
    assert (first["device"], first["checkpoint_seconds"]) == ("auto", 30)
    assert (second["device"], second["checkpoint_seconds"]) == ("cpu", 7)


def test_a_device_that_is_absent_is_no_failure_of_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    wanted = [*QUICK, (["fit", "device"], "cuda")]
    with pytest.raises(ValueError, match="torch finds no CUDA here"):
        quick(tmp_path / "s", assignments=wanted)
    assert not (tmp_path / "s").exists()
    search = quick(tmp_path / "s", num_trials=1)
    elsewhere = {**search.plan, "fit": {**search.plan["fit"], "device": "cuda"}}
    with pytest.raises(ValueError, match="torch finds no CUDA here"):  # as in a worker on another machine
        tuning._work(search.path, 2, elsewhere, None, 0)
    assert len(read_search(search.path).trials) == 1


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match=r"contains 'letter.txt' and no search"):
        quick(tmp_path / "s")
    assert [item.name for item in (tmp_path / "s").iterdir()] == ["letter.txt"]
    with pytest.raises(RunError, match="not the folder of a search"):
        read_search(tmp_path)


def test_data_that_changed_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    quick(tmp_path / "s", str(tmp_path / "x.npy"), space=[SPACE[1]], num_trials=1)
    np.save(tmp_path / "x.npy", rows + 1)
    with pytest.raises(RunError, match="the data have changed since the search"):
        quick(tmp_path / "s", str(tmp_path / "x.npy"), space=[SPACE[1]], num_trials=2)


def test_nothing_is_printed_and_optuna_stays_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    quick(tmp_path / "s", num_trials=1)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
    quick(tmp_path / "s", num_trials=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "trials 2/2" in err
    assert "best validation ELBO" in err
