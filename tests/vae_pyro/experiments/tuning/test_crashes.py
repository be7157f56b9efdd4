"""A search survives crashes and kills at any place."""

import shutil
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.vae_pyro.experiments.tuning.quick_search import CRASHED, QUICK, Crash, quick, started, table, wait_for
from vae_pyro.core.files import RunError
from vae_pyro.experiments.tuning.search import Search, read_search
from vae_pyro.runs.folder import RunFolder


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
def test_a_crash_anywhere_changes_no_result(
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


@pytest.mark.slow
def test_a_kill_changes_no_result(tmp_path: Path, uninterrupted: Search) -> None:
    process = started(tmp_path / "s", **CRASHED)
    checkpoint = tmp_path / "s" / "trials" / "0000" / "state" / "checkpoint.safetensors"
    wait_for(checkpoint.exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_search(tmp_path / "s").trials[-1].state == "stopped"
    assert table(quick(tmp_path / "s", **CRASHED)) == table(uninterrupted)


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
