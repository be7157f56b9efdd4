"""Crashes of an experiment cost at most an epoch, and the results have the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import alive, wait_for
from tests.vae_pyro.experiments.small_experiment import SMALL, assert_same_bits, go, interrupt, tensors
from vae_pyro import RunFolder
from vae_pyro.experiments.folder import Experiment, lock_file, read_experiment
from vae_pyro.experiments.running import ExperimentInterruptedError
from vae_pyro.parallel.locks import is_held

LONG = [*SMALL[:2], (["fit", "epochs"], 20), (["fit", "batch_size"], 2), (["fit", "compile"], False)]


@pytest.fixture(scope="module")
def undisturbed(source: str, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return go(tmp_path_factory.mktemp("undisturbed") / "e", source, assignments=LONG, seeds=2)


WHOLE = """
import sys
from vae_pyro.experiments.running import run_experiment
from tests.vae_pyro.experiments.test_crashes import LONG

if __name__ == "__main__":
    run_experiment(sys.argv[1], sys.argv[2], objectives=["elbo"], seeds=2, assignments=LONG, num_workers=2)
"""


@pytest.mark.slow
def test_kill_a_worker_then_all_and_continue_to_the_same_bits(
    undisturbed: Experiment, source: str, tmp_path: Path
) -> None:
    path = tmp_path / "e"
    folders = [RunFolder(path / "runs" / f"elbo-s{seed}") for seed in range(2)]

    def rows_of(folder: RunFolder) -> list[dict[str, float]]:
        return folder.read_history() if folder.history_file.exists() else []

    def pid_of(folder: RunFolder) -> int:
        return int(lock_file(path, folder.path.name).read_text().split()[0])

    def beyond(epochs: list[int]) -> RunFolder | None:
        return next((one for one, past in zip(folders, epochs, strict=True) if len(rows_of(one)) > past), None)

    (tmp_path / "script.py").write_text(WHOLE)
    whole = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(path), source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        struck = wait_for(lambda: beyond([1, 1]))
        first = pid_of(struck)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not alive(first) and not is_held(lock_file(path, struck.path.name)))
        wait_for(lambda: "running" not in read_experiment(path).status.values())  # with loky one takes the others along
        kept = [rows_of(folder) for folder in folders]
        assert read_experiment(path).status[struck.path.name] == "half-finished", kept
        going = wait_for(lambda: beyond([len(rows) for rows in kept]))
        second = pid_of(going)
        os.kill(whole.pid, signal.SIGKILL)
        os.kill(second, signal.SIGKILL)
        assert first != second
    finally:
        whole.kill()
        whole.wait()
    wait_for(lambda: "running" not in read_experiment(path).status.values())  # the other worker misses its parent
    before = [rows_of(folder) for folder in folders]
    assert read_experiment(path).status[going.path.name] == "half-finished", before
    found = go(path, source, assignments=LONG, seeds=2)
    assert set(found.status.values()) == {"done"}, str(found)
    assert_same_bits(undisturbed, found)
    for folder, one, other in zip(folders, kept, before, strict=True):
        rows = folder.read_history()
        assert rows[: len(one)] == one, "seconds and all: these epochs were not fitted again"
        assert rows[: len(other)] == other
        assert len(one) <= len(other) <= len(rows) == 20
    assert len(rows_of(going)) > len(before[folders.index(going)]) > len(kept[folders.index(going)])


def test_a_signal_ends_it_and_the_next_call_continues(source: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentInterruptedError, match="SIGTERM; the same call again continues") as stopped:
        go(tmp_path / "e", source, finish=interrupt)
    assert stopped.value.signum == signal.SIGTERM
    assert stopped.value.out == tmp_path / "e"
    assert read_experiment(tmp_path / "e").status == {"elbo-s0": "half-finished"}
    assert go(tmp_path / "e", source).status == {"elbo-s0": "done"}


@pytest.mark.filterwarnings("ignore:.*going on from the checkpoint before it")
@pytest.mark.parametrize(
    "damage", ["nothing but a state folder", "a checkpoint cut off", "a model cut off", "a config"]
)
def test_what_a_crash_may_leave_is_no_obstacle(damage: str, source: str, tmp_path: Path) -> None:
    reference = go(tmp_path / "e", source)
    bits = tensors(reference)
    folder = reference.trials[0].folder
    if damage == "nothing but a state folder":
        for file in [*folder.path.glob("*"), *folder.path.glob("state/*")]:
            if file.is_file():
                file.unlink()
    elif damage == "a checkpoint cut off":
        folder.model_file.unlink()
        folder.checkpoint_file.write_bytes(folder.checkpoint_file.read_bytes()[:-9])
    elif damage == "a model cut off":
        folder.model_file.write_bytes(folder.model_file.read_bytes()[:-9])
    else:
        folder.model_file.unlink()
        folder.config_file.write_bytes(folder.config_file.read_bytes()[:-9])
    assert read_experiment(tmp_path / "e").status["elbo-s0"] != "done"
    found = go(tmp_path / "e", source)
    assert found.status == {"elbo-s0": "done"}, str(found)
    assert all(torch.equal(value, bits["elbo-s0"][name]) for name, value in tensors(found)["elbo-s0"].items())
