"""dask and ray behind joblib: a cluster that is there already, or one on this machine for as long as a call lasts."""

import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vae_pyro.core.isolation import muted
from vae_pyro.parallel.process import default_workers
from vae_pyro.parallel.signals import interrupts_later

_MISSING = "backend {0!r} requires the package {1!r}, which is not installed: pip install 'vae_pyro[scale]'"


@dataclass(frozen=True)
class Lost:
    """In place of a reply: the worker died."""

    reason: str


@dataclass
class Pool:
    """A joblib backend and how it behaves.

    Attributes:
        backend: name or object, as `joblib.parallel_config` takes it.
        width: tasks at once; ``None`` leaves it to the cluster, which may grow.
        options: of the backend.
        patient: a dead worker fails its own task only, which the cluster has already tried again.
        parent: process that the workers have to end with, where they do not by themselves.
    """

    backend: Any
    width: int | None
    options: dict[str, Any] = field(default_factory=dict)
    patient: bool = False
    parent: int | None = None


def cluster_backend(
    start: Callable[[Any], Any], result: Callable[[Any], Any], stop: Callable[[list[Any]], None]
) -> Any:
    """A joblib backend on a cluster's futures.

    joblib's own dask backend waits for ever for a task whose worker was killed. Ray's deals tasks out in turn, behind
    busy workers too, does not replace those that died, and changes a class of joblib for the whole process.

    Args:
        start: from a call without arguments to its future.
        result: of a future that is done; a `Lost` in a list where the worker died.
        stop: what is to become of futures that nobody waits for any more.
    """
    from joblib.parallel import ParallelBackendBase

    class Cluster(ParallelBackendBase):
        supports_retrieve_callback = True
        supports_return_generator = True

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.open: dict[int, Any] = {}

        def effective_n_jobs(self, n_jobs: int) -> int:
            return n_jobs

        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            self.parallel = parallel
            return n_jobs

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = start(func)
            self.open[id(future)] = future
            future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, future: Any) -> Any:
            self.open.pop(id(future), None)
            return result(future)

        def abort_everything(self, ensure_ready: bool = True) -> None:
            left, self.open = list(self.open.values()), {}
            stop(left)

    return Cluster()


@contextmanager
def dask_pool(width: int | None, address: str | None, retries: int) -> Iterator[Pool]:
    """Workers of dask.

    Args:
        width: tasks at once; of a cluster on this machine also its workers.
        address: of a scheduler, else ``DASK_SCHEDULER_ADDRESS``; without either a cluster is started.
        retries: what a cluster that is started here gives a task whose worker died.

    Raises:
        ValueError: dask is not installed, or a worker has more than one thread.
    """
    try:
        import dask
        import distributed
    except ImportError:
        raise ValueError(_MISSING.format("dask", "dask[distributed]")) from None
    address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    cluster = None
    with ExitStack() as stack:
        for name in ("distributed.nanny", "distributed.scheduler", "distributed.client", "distributed.worker"):
            stack.enter_context(muted(name, logging.CRITICAL))  # a worker that dies is answered for here
        if address is None:
            width = width or default_workers()
            with dask.config.set({"distributed.scheduler.allowed-failures": retries}), interrupts_later():
                # Without a limit of memory: a worker that holds much is no reason to end it.
                cluster = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=width,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address=":0",
                        memory_limit=0,
                        silence_logs=logging.CRITICAL,
                    )
                )
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        else:
            client = stack.enter_context(distributed.Client(address, set_as_default=False))
            for name, threads in client.nthreads().items():
                if threads > 1:
                    raise ValueError(
                        f"the dask worker {name} has {threads} threads, and a fit requires a process of its own; start "
                        "workers with --nthreads 1, and as many as there are cores"
                    )

        def start(call: Any) -> Any:
            return client.submit(call, pure=False)

        def result(future: Any) -> Any:
            try:
                return future.result()
            except distributed.scheduler.KilledWorker as error:
                return [Lost(f"last on {error.last_worker.address}")]
            except CancelledError:
                return [Lost("the scheduler gave it up")]
            finally:
                future.release()  # else the cluster computes it anew when the worker that held it dies

        def stop(left: list[Any]) -> None:
            keys = {future.key for future in left}
            held = client.processing()
            busy = [name for name, processing in held.items() if keys & {str(key) for key in processing}]
            with contextlib.suppress(Exception):  # a worker without a nanny cannot be ended from here
                client.cancel(left, force=True)
                if busy and cluster is not None:
                    _kill(nanny for nanny in cluster.workers.values() if nanny.worker_address in busy)
                elif busy:
                    client.restart_workers(busy, timeout=10)

        try:
            yield Pool(cluster_backend(start, result, stop), width, patient=True)
        except BaseException:
            if cluster is not None:
                for nanny in cluster.workers.values():
                    nanny.auto_restart = False
                _kill(cluster.workers.values())
            raise


def _kill(nannies: Iterable[Any]) -> None:
    """End workers of dask on this machine, in the middle of a task as well, for which dask would wait."""
    for nanny in nannies:
        with contextlib.suppress(OSError, TypeError):  # it is gone already, or was never there
            os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def ray_pool(width: int | None, address: str | None, retries: int) -> Iterator[Pool]:
    """Workers of ray, with a core and, where the cluster has any, a GPU for each task.

    Args:
        width: as in `dask_pool`.
        address: of a cluster, else ``RAY_ADDRESS``; without either one is started.
        retries: how often ray gives a task whose worker died again.

    Raises:
        ValueError: ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ValueError(_MISSING.format("ray", "ray")) from None
    address = address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        if not ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "address": address}
            stack.enter_context(muted("ray", logging.CRITICAL))
            if address is None:
                width = width or default_workers()
                short = "/tmp" if len(tempfile.gettempdir()) > 30 and Path("/tmp").is_dir() else None  # sockets' paths
                folder = tempfile.mkdtemp(prefix="ray-", dir=short)
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                options |= {"address": "local", "num_cpus": width, "include_dashboard": False, "_temp_dir": folder}
            stack.callback(ray.shutdown)
            ray.init(**options)
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=retries, retry_exceptions=False)(_call)
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
        deaths = tuple(getattr(ray.exceptions, name) for name in names)
        refs: dict[int, Any] = {}

        def start(call: Any) -> Any:
            ref = remote.remote(call)
            future = ref.future()
            refs[id(future)] = ref
            return future

        def result(future: Any) -> Any:
            refs.pop(id(future), None)
            try:
                return future.result()
            except deaths as error:
                return [Lost(type(error).__name__)]

        def stop(left: list[Any]) -> None:
            for future in left:
                ref = refs.pop(id(future), None)
                if ref is not None:
                    ray.cancel(ref, force=True)

        yield Pool(cluster_backend(start, result, stop), width, patient=True)


def _call(call: Any) -> Any:
    return call()
