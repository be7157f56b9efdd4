"""`map_tasks`: independent tasks in processes of this machine or of a cluster, where a process that dies costs little.

joblib distributes: its own loky on one machine, dask or ray on a cluster (`vae_pyro.parallel.clusters`). What a worker
does of a task is in `vae_pyro.parallel.process`.
"""

import importlib
import os
import re
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, Literal, get_args

from vae_pyro.core.isolation import undisturbed
from vae_pyro.parallel.clusters import Lost, Pool, dask_pool, ray_pool
from vae_pyro.parallel.process import Reply, default_workers, perform
from vae_pyro.parallel.signals import handled_by

type Backend = Literal["sequential", "loky", "dask", "ray"]

BACKENDS: tuple[str, ...] = get_args(Backend.__value__)
_DIED = "its worker died at every try: killed from outside, out of memory, or a crash of the interpreter"


class WorkInterruptedError(KeyboardInterrupt):
    """SIGINT or SIGTERM ended `map_tasks`; its workers are gone.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


@dataclass(frozen=True)
class Outcome[T, R]:
    """What became of one task.

    Attributes:
        task: as given.
        value: what the function returned; ``None`` where it did not.
        error: type and message of what it raised, and the last line of the traceback; or that its worker kept dying.
            ``None`` where it returned.
        traceback: in full, where it raised.
    """

    task: T
    value: R | None = None
    error: str | None = None
    traceback: str | None = None


@contextmanager
def _loky(width: int) -> Iterator[Pool]:
    from joblib.externals.loky import get_reusable_executor

    busy = True
    try:
        yield Pool("loky", width, {"max_nbytes": None}, parent=os.getpid())
        busy = False
    finally:
        # Idle workers end by themselves, and so take down what libraries hold in them (semaphores of a compiler).
        get_reusable_executor(max_workers=1, reuse=True).shutdown(wait=True, kill_workers=busy)


@contextmanager
def _pool(backend: str, num_workers: int | None, address: str | None, retries: int, tasks: int) -> Iterator[Pool]:
    if backend == "sequential":
        yield Pool("sequential", 1)
        return
    with undisturbed():  # what the libraries leave in environment, generators and filters
        if backend == "loky":
            with _loky(min(num_workers or default_workers(), tasks)) as pool:
                yield pool
        else:
            width = None if num_workers is None else min(num_workers, tasks)
            with (
                (dask_pool if backend == "dask" else ray_pool)(width, address, max(retries - 1, 0)) as pool,
                _signals(),
            ):
                yield pool  # _signals again: the libraries bring handlers of their own


def _stop(signum: int, frame: FrameType | None) -> None:
    raise WorkInterruptedError(signum)


def _signals() -> AbstractContextManager[None]:
    """Without a handler SIGTERM would end this process and leave its workers."""
    return handled_by(_stop)


@dataclass
class _Round:
    """One pass over some of the tasks: what was handed out and what came back."""

    given: list[int] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    reason: str = ""

    def replies(
        self, pool: Pool, calls: Callable[[int], Any], indices: Sequence[int], width: int | None
    ) -> Generator[Reply]:
        from joblib import Parallel, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        def hand_out() -> Iterator[Any]:
            for index in indices:
                self.given.append(index)
                yield calls(index)

        # As many are handed out as can run, so that those which were not answered are those that a death interrupted.
        limit: Any = "all" if width is None else width
        number = len(indices) if width is None else width
        if pool.backend != "sequential":
            number = max(number, 2)  # where it is 1, joblib runs the tasks in this process
        with parallel_config(backend=pool.backend, n_jobs=number, **pool.options):
            answers = Parallel(batch_size=1, pre_dispatch=limit, return_as="generator_unordered")(hand_out())
            try:
                for answer in answers:
                    if isinstance(answer, Lost):
                        self.reason = answer.reason
                    elif answer.stopped:
                        self.reason = answer.error or "stopped"
                    else:
                        self.answered.add(answer.index)
                        yield answer
            except TerminatedWorkerError as error:
                codes = re.search(r"exit codes of the workers are ({.*?})", str(error))
                self.reason = "" if codes is None else f"exit codes {codes[1]}"
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # joblib remarks on tasks that are given up
                    answers.close()

    @property
    def lost(self) -> list[int]:
        """Tasks that were handed out and never answered."""
        return [index for index in self.given if index not in self.answered]


def map_tasks[T, R](
    function: Callable[[T], R],
    tasks: Iterable[T],
    *,
    backend: Backend = "loky",
    num_workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    address: str | None = None,
    on_done: Callable[[Outcome[T, R]], None] | None = None,
) -> list[Outcome[T, R]]:
    """Run ``function`` on every task, each in a worker process, and wait for all of them.

    What a task raises is its outcome and stops no other. A worker that is killed costs what it was doing (with loky
    also what the others were doing at that moment); those tasks are given again, the last time alone, so that a task
    which kills its worker is distinguished from those that ran beside it. A task may so run more than once, and must be
    idempotent.

    A worker takes one GPU of its host for itself where there are some (`claim_device`). Nothing stays changed in this
    process, and no process stays behind, also where SIGINT, SIGTERM or an error of ``on_done`` ends the call.

    Args:
        function: of one task. It, the tasks and the values have to be picklable, except with ``sequential``.
        tasks: independent of one another.
        backend: ``sequential`` (in this process), ``loky`` (processes of this machine), ``dask``, or ``ray``.
        num_workers: tasks at once. ``None`` is one for each GPU, or core, of this machine; and on a cluster that is
            there already, whatever the cluster has.
        threads: of torch, OpenMP and MKL in each task.
        retries: how often a task whose worker died is given again.
        address: of a dask scheduler (else ``DASK_SCHEDULER_ADDRESS``) or a ray cluster (else ``RAY_ADDRESS``). Without
            one a cluster on this machine is started and ended.
        on_done: called in this process with each outcome as it comes.

    Returns:
        The outcomes, in the order of ``tasks``.

    Raises:
        ValueError: an unknown backend or a number out of range; a backend that is not installed; dask workers with more
            than one thread.
        WorkInterruptedError: SIGINT or SIGTERM.
    """
    listed = list(tasks)
    _check(backend, num_workers, threads, retries, address)
    outcomes: dict[int, Outcome[T, R]] = {}

    def keep(index: int, **found: Any) -> None:
        outcomes[index] = Outcome(listed[index], **found)
        if on_done is not None:
            on_done(outcomes[index])

    if listed:
        with undisturbed():  # the first import of joblib sets a variable of the environment
            importlib.import_module("joblib")
            importlib.import_module("threadpoolctl")
        with _signals(), _pool(backend, num_workers, address, retries, len(listed)) as pool:
            calls = partial(_call_for, function, listed, threads, pool)
            deaths = dict.fromkeys(range(len(listed)), 0)
            while waiting := [index for index in deaths if index not in outcomes]:
                crowd = [index for index in waiting if deaths[index] < max(retries, 1)]
                this = _Round()
                given = crowd or waiting[:1]
                with closing(this.replies(pool, calls, given, pool.width if crowd else 1)) as replies:
                    for reply in replies:
                        keep(reply.index, value=_value(reply, pool), error=reply.error, traceback=reply.traceback)
                for index in this.lost:
                    deaths[index] = retries if pool.patient and crowd else deaths[index] + 1
                    if retries == 0 or not crowd:
                        keep(index, error=_DIED + (f" ({this.reason})" if this.reason else ""))
    return [outcomes[index] for index in range(len(listed))]


def _value(reply: Reply, pool: Pool) -> Any:
    import cloudpickle

    return reply.value if pool.backend == "sequential" or reply.error is not None else cloudpickle.loads(reply.value)


def _call_for(function: Any, tasks: Sequence[Any], threads: int, pool: Pool, index: int) -> Any:
    import cloudpickle
    from joblib import delayed

    own_process = pool.backend != "sequential"
    payload = (function, tasks[index])
    packed = cloudpickle.dumps(payload) if own_process else payload
    return delayed(perform)(packed, index, threads, pool.parent, own_process)


def _check(backend: str, num_workers: int | None, threads: int, retries: int, address: str | None) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if address is not None and backend not in ("dask", "ray"):
        raise ValueError(f"address={address!r} is of a cluster, and backend {backend!r} has none; choose dask or ray")
    for name, value, least in (("num_workers", num_workers, 1), ("threads", threads, 1), ("retries", retries, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} is at least {least}, got {value}")
