"""What a worker process does of one task: alone in its process, with exact threads, and a GPU of its own.

A fixed number of threads keeps sums, and so bits, the same wherever a task runs.
"""

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from vae_pyro.parallel.locks import lock

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PARENT_POLL_SECONDS = 0.5

# Pyro's parameter store and torch's generators belong to the process: two tasks in threads of one would mix theirs.
_ALONE = threading.Lock()
_CLAIMED: list[tuple[int, ExitStack]] = []
_WATCHED: set[int] = set()


@dataclass(frozen=True)
class Reply:
    """What comes back from a worker.

    Attributes:
        index: of the task.
        value: what the function returned, as bytes where it comes from another process.
        error: see `in_words`.
        traceback: likewise.
        stopped: a signal ended the task, and not the function.
    """

    index: int
    value: Any = None
    error: str | None = None
    traceback: str | None = None
    stopped: bool = False


def default_workers() -> int:
    """One for each GPU of this machine, or one for each of the cores that this process may use."""
    from joblib import cpu_count

    return torch.cuda.device_count() or int(cpu_count())


@contextmanager
def exact_threads(number: int) -> Iterator[None]:
    """Compute with ``number`` threads, in torch and in every other library of the process that has a pool of them.

    The environment says so as well, to libraries that are loaded, and processes that are started, in the meantime.
    """
    from threadpoolctl import threadpool_limits

    before, environment = torch.get_num_threads(), {name: os.environ.get(name) for name in _THREADS}
    with threadpool_limits(limits=number):
        torch.set_num_threads(number)
        os.environ.update(dict.fromkeys(_THREADS, str(number)))
        try:
            yield
        finally:
            torch.set_num_threads(before)
            for name, value in environment.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def claim_device(devices: Sequence[str], folder: Path) -> int:
    """Take one of this host's devices for this process, for as long as it lives.

    Each device has a lock file, which the kernel releases however the process ends. Where there are more processes than
    devices, they share them evenly.

    Args:
        devices: a name for each, the same in every process of the host.
        folder: where the lock files are, on the host's own disk; it is made.

    Returns:
        Position of the device in ``devices``; the same again at a second call.
    """
    if _CLAIMED:
        return _CLAIMED[0][0]
    folder.mkdir(parents=True, exist_ok=True)
    for share in count():
        for position, name in enumerate(devices):
            held = lock(folder / f"{name.replace('/', '_')}.{share}.lock", wait=False)
            if held is not None:
                _CLAIMED.append((position, held))
                return position
    raise AssertionError("there is always a next share")


def cuda_names() -> list[str]:
    """A name for each GPU that this process sees: as ``CUDA_VISIBLE_DEVICES`` has them, or their numbers."""
    found = torch.cuda.device_count()
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed if len(listed) == found else [str(position) for position in range(found)]


def take_device() -> None:
    """Claim a GPU of this host, where there are some, and compute on it."""
    names = cuda_names()
    if names:
        folder = Path(tempfile.gettempdir()) / f"vae_pyro-devices-{os.getuid()}"
        torch.cuda.set_device(claim_device(names, folder))  # at each task: CUDA keeps it for the thread


def _end_with(parent: int) -> None:
    """End this process when ``parent`` is gone, in the middle of a task as well; loky waits for the task's end."""
    if parent in _WATCHED:
        return
    _WATCHED.add(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()


def perform(payload: Any, index: int, threads: int, parent: int | None, own_process: bool) -> Reply:
    """Run one task and answer for it; whatever it raises is an answer too."""
    import cloudpickle

    with _ALONE:
        if parent is not None:
            _end_with(parent)
        try:
            if own_process:
                take_device()
            # As bytes, a task that cannot be read fails alone, and dask does not keep it on a worker that may die.
            function, task = cloudpickle.loads(payload) if own_process else payload
            with exact_threads(threads):
                value = function(task)
            return Reply(index, cloudpickle.dumps(value) if own_process else value)
        except KeyboardInterrupt as error:
            if not own_process:
                raise
            return Reply(index, error=str(error), stopped=True)
        except (Exception, SystemExit) as error:
            text, whole = in_words(error)
            return Reply(index, error=text, traceback=whole)


def in_words(error: BaseException) -> tuple[str, str]:
    """Type and message of an error with the place where it was raised, and its traceback in full."""
    whole = "".join(traceback.format_exception(error))
    if error.__traceback__ is None:  # it was handed over, not raised
        return f"{type(error).__name__}: {error}", whole
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
    return f"{type(error).__name__}: {error} ({where})", whole
