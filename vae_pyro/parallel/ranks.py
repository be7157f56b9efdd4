"""Processes that fit one model together: who they are, what they add up, and how they are started and lost.

Every process (rank) holds the whole model, takes its share of each batch, and adds its gradient to the others'; all
then take the same step. Lightning Fabric finds the devices, starts the processes, or recognises those that ``torchrun``
or SLURM has started; the sums themselves are `torch.distributed`'s (NCCL on GPUs, gloo on CPUs).
"""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vae_pyro.core.isolation import muted

_LOOK_SECONDS = 0.2
# Variables of the environment by which a launcher tells a process of the others: torchrun, SLURM, MPI, and by hand.
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "NODE_RANK", "GROUP_RANK")
CONTINUE = "continue it with --resume (resume=True), which goes on from the last checkpoint"
_LOST = 70  # exit code of a process that ends because another is gone (EX_SOFTWARE)


class RankLostError(RuntimeError):
    """Another process of the fit is gone; the message says how to go on."""


class Ranks:
    """The processes of one fit, as one of them sees them. Every method is to be called by all of them, in one order.

    Args:
        rank: number of this process, from 0.
        of: how many there are.
    """

    def __init__(self, rank: int = 0, of: int = 1) -> None:
        if not 0 <= rank < of:
            raise ValueError(f"rank {rank} of {of} processes does not exist")
        self.rank, self.of = rank, of
        self._caught = 0.0
        self._heard: Tensor | None = None

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.of == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes.

        Raises:
            RankLostError: another process is gone.
        """
        if not self.alone:
            with _lost():
                torch.distributed.all_reduce(tensor)

    def sum(
        self, weighted: Sequence[Tensor], plain: Sequence[Tensor] = (), *, weight: float = 1.0
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Sums over all processes, in one message, which carries the signal of `announce` as well.

        Args:
            weighted: tensors of one type that this process's ``weight`` multiplies, one at least.
            plain: tensors of the same type that are added up as they are.
            weight: of this process.

        Returns:
            The sums of both, views of one vector.

        Raises:
            RankLostError: another process is gone.
        """
        parts = [*plain, *weighted]
        flat = torch.cat([weighted[0].new_full((1,), self._caught), *(part.reshape(-1) for part in parts)])
        if weight != 1.0:
            flat[1 + sum(part.numel() for part in plain) :] *= weight
        self.add(flat)
        self._heard = flat[0]
        pieces = flat[1:].split([part.numel() for part in parts])
        summed = [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
        return summed[len(plain) :], summed[: len(plain)]

    def announce(self, signum: int | None) -> None:
        """Tell the other processes of a signal that this one has caught, with the next `sum`."""
        if not self.alone:
            self._caught = float(signum or 0)

    def agreed_signal(self, own: int | None) -> int | None:
        """The signal that ends what the processes do, in all of them after the same `sum`.

        Args:
            own: what this process has caught.

        Returns:
            ``own`` of a process that is alone. Of several: once any of them has announced a signal with the last
            `sum`, ``own`` or else SIGTERM.
        """
        if self.alone:
            return own
        heard = self._heard is not None and bool(self._heard)
        return (own or signal.SIGTERM) if heard else None

    def copy_from_first(self, tensor: Tensor) -> None:
        """Replace a tensor by that of rank 0.

        Raises:
            RankLostError: another process is gone.
        """
        if not self.alone:
            with _lost():
                torch.distributed.broadcast(tensor, 0)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Tensors of all processes, in the order of ranks.

        Raises:
            RankLostError: another process is gone.
        """
        if self.alone:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.of)]
        with _lost():
            torch.distributed.all_gather(parts, tensor)
        return parts

    @contextmanager
    def first_succeeds(self, device: torch.device) -> Iterator[None]:
        """What rank 0 does inside may fail: the others then end as well, instead of waiting for it.

        Raises:
            RankLostError: on the other ranks, where rank 0 failed.
        """
        failed = torch.zeros((), device=device)
        try:
            yield
        except BaseException:
            failed += 1
            self.add(failed)
            raise
        self.add(failed)
        if bool(failed):
            raise RankLostError("rank 0 refused the fit; it says why")


ALONE = Ranks()
# Set while no fit of several processes is running: then one of them may end before the others.
_at_rest = threading.Event()
_leaving = threading.Event()
_at_rest.set()


@contextmanager
def together(ranks: Ranks, device: torch.device, way_out: str = CONTINUE) -> Iterator[None]:
    """While inside, the loss of one process ends the others; at the end they wait for each other.

    Args:
        ranks: the processes.
        device: of this one.
        way_out: what the error says of going on.

    Raises:
        RankLostError: another process is gone.
    """
    if ranks.alone:
        yield
        return
    _at_rest.clear()
    try:
        yield
        ranks.add(torch.zeros((), device=device))
    except RankLostError as lost:
        raise RankLostError(f"{lost}; {way_out}") from lost
    finally:
        _at_rest.set()


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo and NCCL raise has no type that distinguishes a lost peer from the rest
        raise RankLostError(f"another process of this fit is gone ({str(error).strip().splitlines()[0]})") from error


def launched() -> Ranks:
    """The processes of the default group of `torch.distributed`; `ALONE` where there is none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return ALONE


def launch(devices: int, num_nodes: int, accelerator: str) -> tuple[Ranks, torch.device]:
    """Start, or join, the processes of a fit; the first call of a process counts.

    Where nothing has started the others yet, they are started here, each running this program again from its start
    with its own rank. Under ``torchrun`` or SLURM they are there already, one for each device.

    Args:
        devices: on each machine.
        num_nodes: machines.
        accelerator: ``cpu`` or ``cuda``.

    Returns:
        The processes, and the device of this one.

    Raises:
        ValueError: lightning-fabric is not installed, there are fewer devices, or processes that were started outside
            are not ``devices * num_nodes``.
    """
    ranks, device = launched(), torch.device(accelerator)
    if ranks.alone:
        _require_machines(devices, num_nodes, accelerator)
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies import DDPStrategy
        except ImportError:
            raise ValueError(
                "a fit on several devices requires lightning-fabric: pip install 'vae_pyro[scale]'"
            ) from None
        backend = "nccl" if accelerator == "cuda" else "gloo"
        strategy = DDPStrategy(process_group_backend=backend)
        with muted("lightning_fabric", logging.WARNING):  # it remarks that processes were started
            Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy).launch()
        ranks = launched()
        atexit.register(_leave, _watch(getattr(strategy.launcher, "procs", [])))
    if ranks.of != devices * num_nodes:
        raise ValueError(
            f"{ranks.of} processes were started, but devices={devices} on {num_nodes} nodes are {devices * num_nodes}"
        )
    if accelerator == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", ranks.rank % devices)))
        torch.cuda.set_device(device)
    return ranks, device


def _require_machines(devices: int, num_nodes: int, accelerator: str) -> None:
    """Refuse more processes than this machine has devices for, and machines that no launcher has brought together.

    Raises:
        ValueError: the message names what is there.
    """
    gpus = accelerator == "cuda"
    there = torch.cuda.device_count() if gpus else len(os.sched_getaffinity(0))
    if devices > there:
        what = f"torch finds {there} CUDA devices here" if gpus else f"this machine gives {there} cores"
        raise ValueError(f"devices={devices}, but {what}; lower devices")
    if num_nodes > 1 and not any(name in os.environ for name in _LAUNCHERS):
        raise ValueError(
            f"num_nodes={num_nodes}, but nothing has started this program on other machines; start it with torchrun or "
            "SLURM, or leave num_nodes at 1"
        )


def _leave(watch: threading.Thread | None) -> None:
    """End the group while the interpreter still runs: its threads, and that of `_watch`, may abort it later."""
    _leaving.set()
    if watch is not None:
        watch.join()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _watch(children: list[Any]) -> threading.Thread | None:
    """End this process when one that belongs to it is gone: NCCL would wait for it for ten minutes.

    The process that started the others watches them, and they watch it.
    """
    parent = os.getppid()
    if not children and "LOCAL_RANK" not in os.environ:
        return None

    def look() -> None:
        gone = None
        while True:
            if _leaving.wait(_LOOK_SECONDS):
                return
            gone = next((child for child in children if child.poll() not in (None, 0)), None)
            if not _at_rest.is_set() and (gone is not None or (not children and os.getppid() != parent)):
                # A process that waits in gloo learns of the loss by itself, and its message says more.
                time.sleep(5 * _LOOK_SECONDS)
                if not _at_rest.is_set():
                    break
        who = (
            f"process {gone.pid} ended with code {gone.returncode}" if gone is not None else "the first process is gone"
        )
        print(f"error: {who}, and the fit with it; {CONTINUE}", file=sys.stderr, flush=True)
        for child in children:
            child.kill()
        os._exit(_LOST)

    thread = threading.Thread(target=look, name="watches the processes of a fit", daemon=True)
    thread.start()
    return thread
