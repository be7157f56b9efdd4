"""The search: what it may be over, that it chooses by validation ELBO alone, shares its trials and survives a kill."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from vae_pyro.core.files import RunError, read_tensors
from vae_pyro.data.dataset import Dataset
from vae_pyro.experiments.tuning import search as search_module
from vae_pyro.experiments.tuning import trial as trial_module
from vae_pyro.experiments.tuning import tuning
from vae_pyro.experiments.tuning.search import Search, read_search, validation_file
from vae_pyro.experiments.tuning.space import parse_space
from vae_pyro.experiments.tuning.study import next_trial, open_study, quiet, trial_lock
from vae_pyro.experiments.tuning.trial import Watch, trial_settings
from vae_pyro.experiments.tuning.tuning import SearchInterruptedError, tune
from vae_pyro.parallel.locks import lock
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.settings import assemble

QUICK: list[tuple[list[str], Any]] = [
    (["fit", "compile"], False),
    (["fit", "epochs"], 2),
    (["fit", "batch_size"], 256),
    (["model", "encoder", "hidden"], [8]),
]
SPACE = ["latent_dim=2..6", "optimizer.lr=1e-4..1e-2:log", "encoder.hidden=[8],[6]"]


def quick(out: Path, source: str = "digits", **changes: Any) -> Search:
    given: dict[str, Any] = {"space": SPACE, "num_trials": 4, "num_random": 3, "assignments": QUICK, "seed": 3}
    return tune(out, source, **(given | changes))


def table(search: Search) -> list[Any]:
    return [(trial.number, trial.state, trial.params, trial.value, trial.curve) for trial in search.trials]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return quick(tmp_path_factory.mktemp("search") / "s", num_trials=5, num_unpruned=2)


# --- the space --------------------------------------------------------------------------------------------------------


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


def test_a_variant_may_be_searched_with_its_options() -> None:
    settings = assemble("digits", assignments=[*QUICK, (["fit", "objective"], "beta:beta=9,num_particles=3")])
    space = [parse_space(text) for text in ("objective=beta:beta=1..4", "optimizer=adam,sgd", "optimizer.lr=0.1..0.2")]
    plan = tuning._plan(settings, space, {})
    _, config = trial_settings(plan, space, {"objective.beta": 2, "optimizer": "sgd", "optimizer.lr": 0.15})
    assert config.objective.options == {"num_particles": 3, "beta": 2.0}  # what the user gave beside it stays
    assert (config.optimizer.name, config.optimizer.options["lr"]) == ("sgd", 0.15)
    wide, _ = trial_settings(plan, [parse_space("encoder.hidden=[5,4],[3]")], {"encoder.hidden": "[5,4]"})
    assert list(wide.encoder.options["hidden"]) == [5, 4]
    assert wide.decoder is not None
    assert list(wide.decoder.options["hidden"]) == [4, 5]  # it goes on mirroring the encoder


# --- the choice -------------------------------------------------------------------------------------------------------


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


def test_what_a_trial_keeps_is_what_it_was_judged_by(searched: Search) -> None:
    """The mean over validation data of what is stored is the value, to rounding: weights and draws are the same."""
    for trial in searched.of_state("complete"):
        figures = trial.validation()
        assert figures is not None
        assert figures.elbo.mean() == pytest.approx(trial.value, rel=1e-6)
        stored = read_tensors(validation_file(trial.folder), "validation")[1]
        assert stored["num_samples"] == figures.num_draws  # the name in files of every version
        config = trial.folder.config()
        assert config["model"]["latent_dim"] == trial.params["latent_dim"]
        assert config["model"]["encoder"]["hidden"] == json.loads(trial.params["encoder.hidden"])
        assert config["fit"]["optimizer"]["lr"] == trial.params["optimizer.lr"]


def test_a_trial_keeps_the_weights_of_its_best_epoch(tmp_path: Path) -> None:
    """At rates so high that the last epoch is not the best one."""
    rough = [*QUICK, (["fit", "epochs"], 8), (["fit", "batch_size"], 64)]
    search = quick(tmp_path / "s", space=["optimizer.lr=0.03,0.06"], assignments=rough, num_trials=2, prune=False)
    early = [trial for trial in search.of_state("complete") if trial.best_epoch != 8]
    assert early
    for trial in early:
        figures = trial.validation()
        assert figures is not None
        assert figures.elbo.mean() == pytest.approx(trial.value, rel=1e-6)
        assert trial.value == max(trial.curve.values()) > trial.curve[8]
        assert len(trial.folder.read_history()) == 8  # it was not stopped there


def test_the_best_settings_are_a_file_that_a_fit_takes(searched: Search) -> None:
    again = assemble("digits", file=searched.path / "best.json")
    config = searched.best.folder.config()
    assert again.model.model_dump(mode="json") == config["model"]
    assert again.fit.model_dump(mode="json") == config["fit"]
    assert again.seed == config["seed"] == 3
    assert again.data.facts.fingerprint == config["facts"]["fingerprint"]


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


# --- trials that end early --------------------------------------------------------------------------------------------


def test_a_trial_below_the_median_is_pruned_and_takes_no_part(tmp_path: Path) -> None:
    """A learning rate that learns nothing is behind one that learns, after one epoch, in every trial."""
    space = ["optimizer.lr=1e-2,1e-8"]
    search = quick(tmp_path / "s", space=space, num_trials=8, num_random=8, num_unpruned=1, seed=3)
    assert search.trials[0].params == {"optimizer.lr": "1e-2"}  # by the seed: the first one complete is a good one
    for trial in search.trials[1:]:
        good = trial.params["optimizer.lr"] == "1e-2"
        assert trial.state == ("complete" if good else "pruned")
        assert len(trial.folder.read_history()) == (2 if good else 1)
    assert search.of_state("pruned")
    assert search.best.params == {"optimizer.lr": "1e-2"}
    without = quick(tmp_path / "t", space=space, num_trials=3, num_random=8, prune=False, seed=3)
    assert {trial.params["optimizer.lr"] for trial in without.trials} == {"1e-2", "1e-8"}
    assert {trial.state for trial in without.trials} == {"complete"}


def test_nothing_is_pruned_in_the_first_tenth_of_the_epochs(tmp_path: Path) -> None:
    long = [*QUICK, (["fit", "epochs"], 21), (["fit", "batch_size"], 1294)]
    search = quick(tmp_path / "s", space=["optimizer.lr=1e-2,1e-8"], num_trials=4, num_random=4, num_unpruned=1, seed=3,
                   assignments=long)  # fmt: skip
    pruned = search.of_state("pruned")
    assert pruned
    assert {len(trial.folder.read_history()) for trial in pruned} == {3}


def test_no_trial_is_pruned_by_the_few_that_came_as_far(tmp_path: Path) -> None:
    """Two of three complete trials ran out of patience after two epochs; the third is no median."""
    search = quick(tmp_path / "s", num_trials=1, num_unpruned=2)
    with quiet():
        study = open_study(search.path, search.plan)
        for epochs in (2, 2, 5):
            trial = study.ask()
            for epoch in range(1, epochs + 1):
                trial.report(-1.0, epoch)
            study.tell(trial, -1.0)
        trial = study.ask()
        trial.report(-2.0, 2)
        assert trial.should_prune()
        trial.report(-2.0, 4)
        assert not trial.should_prune()


def test_epochs_of_the_warm_up_do_not_count(tmp_path: Path) -> None:
    warm = [*QUICK, (["fit", "epochs"], 4), (["fit", "kl_warmup"], 2)]
    search = quick(tmp_path / "s", num_trials=1, assignments=warm)
    trial = search.trials[0]
    history = [row["validation_elbo"] for row in trial.folder.read_history()]
    assert list(trial.curve) == [2, 3, 4]
    assert trial.value == max(history[1:])
    with pytest.raises(ValueError, match=r"1 of 1 failed.*no epoch of 4 counts"):
        quick(tmp_path / "t", num_trials=1, assignments=[*warm, (["fit", "kl_warmup"], 5)])


@pytest.mark.parametrize(
    ("kl_warmup", "kl_cycle", "wanted"),
    [(0.0, None, "111111"), (0.4, None, "111111"), (2.0, None, "011111"), (2.5, None, "001111"), (1.0, 3.0, "110110"),
     (2.0, 2.0, "000000"), (0.0, 1.0, "111111")],
)  # fmt: skip
def test_the_epochs_that_count_are_those_at_whose_end_the_warm_up_is_over(
    kl_warmup: float, kl_cycle: float | None, wanted: str
) -> None:
    config = FitConfig(kl_warmup=kl_warmup, kl_cycle=kl_cycle)
    assert "".join(str(int(config.epoch_counts(epoch, 3))) for epoch in range(1, 7)) == wanted


def test_a_failing_trial_is_recorded_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    space = ["optimizer.lr=1e-3,1e30", "latent_dim=2..4"]
    search = quick(tmp_path / "s", space=space, num_trials=6, num_random=6, seed=3)
    failed = search.of_state("failed")
    assert failed
    assert {trial.params["optimizer.lr"] for trial in failed} == {"1e30"}
    assert all((trial.failure or "").startswith("NonFiniteLossError: ") for trial in failed)
    assert len(failed) + len(search.of_state("complete", "pruned")) == 6
    assert search.best.params["optimizer.lr"] == "1e-3"


def test_if_every_trial_fails_the_first_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 of 2 failed; the first \(optimizer.lr=1e3[01]\): NonFiniteLossError: "):
        quick(tmp_path / "s", space=["optimizer.lr=1e30,1e31"], num_trials=2, seed=3)
    assert not (tmp_path / "s" / "best.json").exists()


def test_the_sampler_learns_from_failures(tmp_path: Path) -> None:
    """Seven tenths of the range at least diverge. Of 24 trials after 6 random ones, 14 that were drawn at random would
    do well with a probability below 0.006; a sampler that left the failures out would draw at random."""
    search = quick(tmp_path / "s", space=["optimizer.lr=1e-3..1e7:log"], num_trials=30, num_random=6, prune=False,
                   assignments=[*QUICK, (["fit", "epochs"], 1)])  # fmt: skip
    assert len(search.of_state("failed")) > 6
    assert max(trial.params["optimizer.lr"] for trial in search.of_state("complete")) < 1
    assert sum(trial.state == "complete" for trial in search.trials[6:]) >= 14


def test_memory_that_does_not_suffice_is_a_failure_of_the_trial(tmp_path: Path) -> None:
    search = quick(tmp_path / "s", space=["encoder.hidden=[8],[4000000000000]"], num_trials=4, num_random=4)
    failed = search.of_state("failed")
    assert {trial.params["encoder.hidden"] for trial in failed} == {"[4000000000000]"}
    assert all("allocate" in (trial.failure or "") for trial in failed)
    assert search.best.params == {"encoder.hidden": "[8]"}


def test_a_trial_that_kills_its_processes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that ended at the same place; an interruption is none of them."""

    def dying(*args: Any, **options: Any) -> Any:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "fit", dying)
        for raised in (Crash(), KeyboardInterrupt(), Crash(), OSError(28, "no space left"), Crash()):
            with pytest.raises(type(raised)):
                quick(tmp_path / "s")
            assert [trial.state for trial in read_search(tmp_path / "s").trials] == ["stopped"]
    search = quick(tmp_path / "s")
    assert [trial.state for trial in search.trials] == ["failed", "complete", "complete", "complete"]
    assert (search.trials[0].failure or "").startswith("3 processes ended at its epoch 1: killed from outside")


def test_an_error_of_no_known_kind_is_raised_and_in_the_end_the_trials_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("a kernel is missing")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "fit", broken)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="a kernel is missing"):
                quick(tmp_path / "s", num_trials=2)
    search = quick(tmp_path / "s", num_trials=2)
    assert [trial.state for trial in search.trials] == ["failed", "complete"]
    assert search.trials[0].failure == "3 processes ended at its epoch 1: RuntimeError: a kernel is missing"


def test_epochs_that_are_repeated_are_reported_and_judged_once() -> None:
    """A process was killed after it had reported two epochs, and the last checkpoint is from before the first."""
    calls: list[str] = []

    class Asked:
        def report(self, value: float, step: int) -> None:
            calls.append(f"report {step}")

        def should_prune(self) -> bool:
            calls.append("judge")
            return False

    watch = Watch(Asked(), FitConfig(epochs=4), 100, {1: -3.0, 2: -2.0})
    for epoch in range(1, 5):
        assert not watch({"epoch": epoch, "validation_elbo": -1.0})
    # The first was judged before the second began; the second may not have been; the last is the end anyway.
    assert calls == ["judge", "report 3", "judge", "report 4"]


# --- one folder, many processes ---------------------------------------------------------------------------------------

_PROCESS = """
import sys
from pathlib import Path
from tests.vae_pyro.experiments.test_tuning import quick
quick(Path(sys.argv[1]), **eval(sys.argv[2]))
"""


def started(out: Path, **changes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _PROCESS, str(out), repr(changes)], cwd=Path(__file__).parents[3])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the process ended before it came so far"
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_two_calls_share_a_folder_and_a_killed_one_loses_nothing(tmp_path: Path) -> None:
    """Two processes; one is killed in the middle of a trial that would never end; the next call goes on with it."""
    out = tmp_path / "s"
    changes: dict[str, Any] = {"num_trials": 5, "prune": False, "assignments": [*QUICK, (["fit", "epochs"], 12),
               (["fit", "checkpoint_seconds"], 0)]}  # fmt: skip
    first, second = started(out, **changes), started(out, **changes)

    def at_work() -> set[str]:
        if not (out / "search.json").exists():
            return set()
        return {trial.processes[-1] for trial in read_search(out).of_state("running") if trial.processes}

    wait_for(lambda: any(name.endswith(f":{first.pid}") for name in at_work()), first)
    first.kill()
    first.wait()
    assert second.wait(120) == 0
    ended = read_search(out)
    search = quick(out, **changes)  # whatever the second process could not know of
    assert [trial.number for trial in search.trials] == list(range(5))
    assert {trial.state for trial in search.trials} == {"complete"}
    workers = {name for trial in search.trials for name in trial.processes}
    assert len(workers) >= 2
    killed = [trial for trial in search.trials if trial.processes[0].endswith(f":{first.pid}")]
    assert any(len(trial.processes) == 2 for trial in killed)
    assert all(len(trial.processes) == 1 for trial in search.trials if trial not in killed)  # no trial was done twice
    assert len(ended.trials) == 5
    assert sorted(item.name for item in (out / "trials").iterdir()) == [f"{number:04d}" for number in range(5)]
    for trial in killed:  # the one that was resumed has the history of one that never was interrupted
        assert [row["epoch"] for row in trial.folder.read_history()] == list(range(1, 13))


class Crash(BaseException):
    """Ends a search like a kill: nothing catches it, and the lock is gone."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return quick(tmp_path_factory.mktemp("search") / "s", **CRASHED)


CRASHED: dict[str, Any] = {
    "num_trials": 4, "num_unpruned": 1, "num_random": 1, "seed": 2,
    "assignments": [*QUICK, (["fit", "epochs"], 4), (["fit", "checkpoint_seconds"], 0)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "late"),
    [
        ("_suggest", False),
        ("begin", False),
        pytest.param("begin", True, marks=pytest.mark.slow),
        pytest.param("report", False, marks=pytest.mark.slow),
        ("report", True),
        pytest.param("should_prune", True, marks=pytest.mark.slow),
        ("tell", False),
        ("tell", True),
    ],
)
def test_a_crash_anywhere_changes_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Search, where: str, late: bool
) -> None:
    """Before or after what is named, at one of the first trials or epochs; the journal's last line is cut."""
    owners: dict[str, Any] = {"begin": RunFolder, "tell": optuna.Study}
    owner = owners.get(where, optuna.Trial)
    original, calls = getattr(owner, where), [0]
    at = {"_suggest": 2, "begin": 2, "tell": 3}.get(where, 6)

    def crashing(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == at and not late:
            raise Crash
        result = original(*args, **options)
        if calls[0] == at:
            raise Crash
        return result

    monkeypatch.setattr(owner, where, crashing)
    with pytest.raises(Crash):
        quick(tmp_path / "s", **CRASHED)
    assert len(read_search(tmp_path / "s").of_state("stopped")) == (0 if (where, late) == ("tell", True) else 1)
    with (tmp_path / "s" / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code": 8, "wor')
    assert table(quick(tmp_path / "s", **CRASHED)) == table(uninterrupted)
    assert {trial.state for trial in uninterrupted.trials} == {"complete", "pruned"}


def test_a_kill_changes_no_figure(tmp_path: Path, uninterrupted: Search) -> None:
    process = started(tmp_path / "s", **CRASHED)
    checkpoint = tmp_path / "s" / "trials" / "0000" / "state" / "checkpoint.safetensors"
    wait_for(checkpoint.exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_search(tmp_path / "s").trials[-1].state == "stopped"
    assert table(quick(tmp_path / "s", **CRASHED)) == table(uninterrupted)


@pytest.mark.slow
def test_workers_share_the_trials(tmp_path: Path) -> None:
    search = quick(tmp_path / "s", num_trials=6, num_workers=2)
    assert [len(trial.processes) for trial in search.trials] == [1] * 6
    assert len({trial.processes for trial in search.trials}) == 2
    assert (tmp_path / "s" / "best.json").exists()


def test_a_damaged_checkpoint_is_not_the_fault_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Search
) -> None:
    """It is refused with a way out, and on that way no figure changes."""

    def crashing(*args: Any, **options: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "should_prune", crashing)
        with pytest.raises(Crash):
            quick(tmp_path / "s", **CRASHED)
    run = read_search(tmp_path / "s").trials[0].folder
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:-1])
    for _ in range(4):
        with pytest.raises(RunError, match=r"trial 0 cannot continue: .*truncated.*remove the folder .*0000'"):
            quick(tmp_path / "s", **CRASHED)
    shutil.rmtree(run.path)
    assert table(quick(tmp_path / "s", **CRASHED)) == table(uninterrupted)


def test_a_journal_that_others_write_on_is_mended(tmp_path: Path) -> None:
    """A process is killed in the middle of a line, and one that is at work writes the next one."""
    search = quick(tmp_path / "s", num_trials=1)
    with quiet():
        study = open_study(search.path, search.plan)
        for number in (2, 3):
            with (search.path / "journal.log").open("ab") as journal:
                journal.write(b'{"op_code": 8, "wor')
            assert len(study.get_trials()) == number - 1  # a reader passes it over
            study.ask()
        assert len(open_study(search.path, search.plan).get_trials()) == 3


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


def test_a_trial_at_work_is_left_alone(searched: Search, tmp_path: Path) -> None:
    search = quick(tmp_path / "s", num_trials=1)
    study_lock = lock(trial_lock(search.path, 1), wait=False)
    assert study_lock is not None
    with study_lock, quiet():
        study = open_study(search.path, search.plan)
        study.ask({dimension.name: dimension.distribution() for dimension in search.space})
        assert read_search(search.path).trials[1].state == "running"
        assert next_trial(study, search.path, search.space, 2) is None
    assert read_search(search.path).trials[1].state == "stopped"
    assert quick(tmp_path / "s", num_trials=2).trials[1].state == "complete"


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


# --- the folder -------------------------------------------------------------------------------------------------------


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
