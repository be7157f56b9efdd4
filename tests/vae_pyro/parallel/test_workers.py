"""`map_tasks`: order, errors, threads, devices, killed workers, signals, and nothing left behind, for each backend."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import WAIT_SECONDS, alive, wait_for
from vae_pyro.core.isolation import undisturbed
from vae_pyro.parallel import process as worker_process
from vae_pyro.parallel.process import claim_device, exact_threads
from vae_pyro.parallel.tasks import BACKENDS, Outcome, WorkInterruptedError, map_tasks


def script(folder: Path, text: str) -> subprocess.Popen[str]:
    file = folder / "script.py"
    file.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(file), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sequential_keeps_order_errors_and_threads() -> None:
    before = torch.get_num_threads()
    seen: list[Outcome[int, Any]] = []

    def work(task: int) -> tuple[int, int, int]:
        if task == 1:
            raise LookupError("no such thing")
        return task, torch.get_num_threads(), os.getpid()

    found = map_tasks(work, [0, 1, 2], backend="sequential", threads=before + 1, on_done=seen.append)
    assert [outcome.task for outcome in found] == [0, 1, 2]
    assert [outcome.value for outcome in found] == [(0, before + 1, os.getpid()), None, (2, before + 1, os.getpid())]
    assert found[0].error is None
    assert found[1].error is not None
    assert found[1].error.startswith("LookupError: no such thing (test_workers.py, line ")
    assert found[1].traceback is not None
    assert "in work" in found[1].traceback
    assert sorted(seen, key=lambda outcome: outcome.task) == found
    assert torch.get_num_threads() == before


def test_tasks_in_threads_of_one_process_take_turns() -> None:
    """Pyro's parameter store and torch's generators belong to the process."""
    running: list[int] = []
    most: list[int] = []

    def work(task: int) -> None:
        running.append(task)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(task)

    perform = partial(worker_process.perform, threads=torch.get_num_threads(), parent=None, own_process=False)
    threads = [threading.Thread(target=perform, args=((work, number), number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_no_tasks() -> None:
    assert map_tasks(abs, [], backend="loky") == []


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    environment = dict(os.environ)

    def fail() -> None:
        with exact_threads(before + 2):
            assert torch.get_num_threads() == before + 2
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == str(before + 2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
    assert dict(os.environ) == environment


def test_loky_answers_in_order_from_its_own_processes(tmp_path: Path) -> None:
    """The first task ends after the second; a value that cannot be sent fails alone."""

    def work(task: str) -> Any:
        if task == "waits":
            wait_for((tmp_path / "quick").exists)
        if task == "raises":
            raise ArithmeticError("of no number")
        if task == "unsendable":
            return threading.Lock()
        return task, os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    tasks = ["waits", "quick", "raises", "unsendable", "last"]
    done: list[str] = []

    def note(outcome: Outcome[str, Any]) -> None:
        done.append(outcome.task)
        (tmp_path / outcome.task).touch()

    environment = dict(os.environ)
    found = map_tasks(work, tasks, num_workers=2, threads=2, on_done=note)
    assert [outcome.task for outcome in found] == tasks
    assert sorted(done) == sorted(tasks)
    assert done.index("quick") < done.index("waits")
    assert dict(os.environ) == environment
    assert found[2].error is not None
    assert "ArithmeticError: of no number" in found[2].error
    assert found[3].error is not None
    assert "pickle" in found[3].error
    for position in (0, 1, 4):
        name, pid, threads, said = found[position].value
        assert name == tasks[position]
        assert threads == 2
        assert said == "2"
        assert pid != os.getpid()
        assert not alive(pid)


@pytest.mark.slow
def test_a_killed_loky_worker_costs_a_second_try(tmp_path: Path) -> None:
    def work(task: str) -> tuple[str, int]:
        if task == "dies once" and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task, os.getpid()

    tasks = ["first", "dies once", "last"]
    found = map_tasks(work, tasks, num_workers=2)
    assert (tmp_path / "killed").exists()
    for outcome, task in zip(found, tasks, strict=True):
        assert outcome.value is not None, outcome.error
        name, pid = outcome.value
        assert name == task
        assert not alive(pid)


@pytest.mark.slow
def test_a_task_that_keeps_killing_its_worker_is_distinguished_from_its_neighbours(tmp_path: Path) -> None:
    def work(task: str) -> str:
        with (tmp_path / task).open("a") as file:
            file.write("x")
        if task == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return task

    found = map_tasks(work, ["a", "killer", "b", "c"], num_workers=2, retries=1)
    assert [outcome.value for outcome in found] == ["a", None, "b", "c"]
    assert found[1].error is not None
    assert "its worker died at every try" in found[1].error
    assert "SIGKILL" in found[1].error
    assert (tmp_path / "killer").read_text() == "xx"


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from vae_pyro.parallel.tasks import WorkInterruptedError, map_tasks

folder = Path(sys.argv[1])

def work(task):
    (folder / f"pid-{os.getpid()}").touch()
    time.sleep(300)

if __name__ == "__main__":
    before = signal.getsignal(signal.SIGTERM)
    try:
        map_tasks(work, range(4), num_workers=2)
    except WorkInterruptedError as stopped:
        assert signal.getsignal(signal.SIGTERM) == before
        print(stopped)
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(signum: signal.Signals, tmp_path: Path) -> None:
    parent = script(tmp_path, INTERRUPTED)
    try:
        pids = wait_for(lambda: len(found := list(tmp_path.glob("pid-*"))) == 2 and found)
        parent.send_signal(signum)
        shown, errors = parent.communicate(timeout=WAIT_SECONDS)
    finally:
        parent.kill()
    if signum == signal.SIGTERM:
        assert shown == "stopped by SIGTERM\n", errors
    for pid in pids:
        wait_for(lambda pid=pid: not alive(int(pid.name[4:])))


def test_an_interruption_of_this_process_is_raised_and_handlers_come_back() -> None:
    def work(task: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(WorkInterruptedError, match="SIGTERM") as stopped:
        map_tasks(work, [1, 2], backend="sequential")
    assert stopped.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_an_error_of_on_done_ends_the_call_and_the_workers(tmp_path: Path) -> None:
    def work(task: int) -> None:
        (tmp_path / f"{os.getpid()}").touch()
        time.sleep(0 if task == 0 else 300)

    def refuse(outcome: Outcome[int, None]) -> None:
        raise BufferError("full")

    with pytest.raises(BufferError, match="full"):
        map_tasks(work, range(3), num_workers=2, on_done=refuse)
    assert not any(alive(int(file.name)) for file in tmp_path.iterdir())


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """Each call is another process, as far as `claim_device` knows: a lock belongs to the opened file."""
    made: list[list[Any]] = []

    def begin() -> list[Any]:
        made.append([])
        monkeypatch.setattr(worker_process, "_CLAIMED", made[-1])
        return made[-1]

    yield begin
    for claimed in made:
        for _, file in claimed:
            file.close()


def test_devices_are_claimed_evenly_and_given_back(processes: Callable[[], list[Any]], tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    names = ["GPU-a/b", "1", "2"]
    held = []
    positions = []
    for _ in range(7):
        held.append(processes())
        positions.append(claim_device(names, folder))
        assert claim_device(names, folder) == positions[-1]  # a second task of the same process
    assert positions == [0, 1, 2, 0, 1, 2, 0]
    held[4][0][1].close()  # that process ends
    processes()
    assert claim_device(names, folder) == 1


def test_a_killed_process_gives_its_device_back(processes: Callable[[], list[Any]], tmp_path: Path) -> None:
    holder = script(
        tmp_path,
        "import sys, time\nfrom pathlib import Path\nfrom vae_pyro.parallel.process import claim_device\n"
        "print(claim_device(['0', '1'], Path(sys.argv[1]) / 'locks'), flush=True)\ntime.sleep(300)\n",
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "0\n"
        processes()
        assert claim_device(["0", "1"], tmp_path / "locks") == 1
    finally:
        holder.kill()
        holder.communicate()
    processes()
    assert claim_device(["0", "1"], tmp_path / "locks") == 0


@pytest.mark.slow
def test_workers_take_down_what_they_hold(tmp_path: Path) -> None:
    """A compiler keeps a semaphore in the process; one that is killed leaves it behind, and Python remarks on it."""
    process = script(
        tmp_path,
        "import multiprocessing\nfrom vae_pyro.parallel.tasks import map_tasks\n"
        "def hold(task):\n    import builtins\n    builtins.held = multiprocessing.Lock()\n    return task\n"
        "print([one.value for one in map_tasks(hold, [0, 1, 2], num_workers=2)])\n",
    )
    said, remarks = process.communicate(timeout=WAIT_SECONDS)
    assert said == "[0, 1, 2]\n"
    assert remarks == ""


def test_devices_are_named_as_the_environment_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert worker_process.cuda_names() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7")
    assert worker_process.cuda_names() == ["3", "GPU-7"]
    assert worker_process.default_workers() == 2
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(worker_process, "claim_device", lambda names, folder: names.index("GPU-7"))
    worker_process.take_device()
    assert taken == [1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    worker_process.take_device()
    assert taken == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "slurm"}, "unknown backend 'slurm'; choose from sequential, loky, dask, ray"),
        (
            {"backend": "loky", "address": "tcp://a:1"},
            "address='tcp://a:1' is of a cluster, and backend 'loky' has none",
        ),
        ({"num_workers": 0}, "num_workers is at least 1, got 0"),
        ({"threads": 0}, "threads is at least 1, got 0"),
        ({"retries": -1}, "retries is at least 0, got -1"),
    ],
)
def test_refusals(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        map_tasks(abs, [1], **options)
    assert set(BACKENDS) == {"sequential", "loky", "dask", "ray"}


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_backend_that_is_not_installed(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ValueError, match=r"pip install 'vae_pyro\[scale\]'"):
        map_tasks(abs, [1], backend=backend)


def work_on_a_cluster(marker: Path) -> Callable[[str], Any]:
    def work(task: str) -> Any:
        if task == "raises":
            raise ArithmeticError("of no number")
        if task == "dies" or (task == "dies once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task, os.getpid(), torch.get_num_threads()

    return work


TASKS = ["first", "raises", "dies once", "dies", "last"]


def check_on_a_cluster(found: list[Outcome[str, Any]]) -> None:
    assert [outcome.task for outcome in found] == TASKS
    for outcome in found:
        if outcome.task == "raises":
            assert outcome.error is not None
            assert outcome.error.startswith("ArithmeticError: of no number")
        elif outcome.task == "dies":
            assert outcome.error is not None
            assert "its worker died at every try" in outcome.error
        else:
            assert outcome.error is None
            assert outcome.value[0] == outcome.task
            assert outcome.value[1] != os.getpid()
            assert outcome.value[2] == 2


@pytest.mark.slow
def test_dask_replaces_killed_workers(tmp_path: Path) -> None:
    """joblib's own dask backend waits for ever here."""
    environment = dict(os.environ)
    work = work_on_a_cluster(tmp_path / "killed")
    check_on_a_cluster(map_tasks(work, TASKS, backend="dask", num_workers=2, threads=2, retries=1))
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_ray_replaces_killed_workers(tmp_path: Path) -> None:
    environment = dict(os.environ)
    work = work_on_a_cluster(tmp_path / "killed")
    check_on_a_cluster(map_tasks(work, TASKS, backend="ray", num_workers=2, threads=2, retries=1))
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_a_call_that_ends_early_takes_its_work_from_a_cluster_that_stays(tmp_path: Path) -> None:
    import distributed

    def work(task: int) -> int:
        (tmp_path / f"{task}-{os.getpid()}").touch()
        time.sleep(0 if task < 2 else 300)
        return task

    def refuse(outcome: Outcome[int, int]) -> None:
        wait_for(lambda: list(tmp_path.glob("2-*")))
        raise BufferError("full")

    with (
        undisturbed(),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
    ):
        with pytest.raises(BufferError, match="full"):
            map_tasks(work, range(4), backend="dask", address=cluster.scheduler_address, on_done=refuse)
        assert not [file for task in (2, 3) for file in tmp_path.glob(f"{task}-*") if alive(int(file.name[2:]))]
        found = map_tasks(work, [0, 1], backend="dask", address=cluster.scheduler_address)
        assert [outcome.value for outcome in found] == [0, 1]


def test_dask_workers_with_threads_are_refused() -> None:
    import dask
    import distributed

    before = dict(dask.config.config)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(ValueError, match="has 3 threads.*--nthreads 1"),
    ):
        map_tasks(abs, [-1], backend="dask", address=cluster.scheduler_address)
    assert dict(dask.config.config) == before
