"""Handlers of SIGINT and SIGTERM: a fit ends between two steps, and tasks in other processes end with their caller.

What one process of a fit has caught reaches the others through `vae_pyro.parallel.ranks.Ranks`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType


class FitInterruptedError(KeyboardInterrupt):
    """A signal ended the fit after a whole step, and after a checkpoint where there is a run folder.

    Attributes:
        signum: SIGINT or SIGTERM.
        out: the run folder, or ``None``.
    """

    def __init__(self, signum: int, out: Path | None) -> None:
        where = f"; continue {str(out)!r} with --resume (resume=True)" if out else "; no run folder, nothing was kept"
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}")
        self.signum, self.out = signum, out


@dataclass
class Caught:
    """The first signal that came, if one has."""

    signum: int | None = None


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM go to a handler; those that were there come back.

    Python delivers signals to the main thread alone; another thread leaves them to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """While inside, Ctrl-C waits; processes and threads that are started have it blocked, and end with their caller.

    Without it every process of a terminal's group would answer Ctrl-C with a traceback of its own.
    """
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    caught = Caught()

    def note(signum: int, frame: FrameType | None) -> None:
        caught.signum = signum

    in_main = threading.current_thread() is threading.main_thread()
    # Threads that are there already do not block the signal: Python would raise what they are given in the main one.
    handler = signal.signal(signal.SIGINT, note) if in_main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if in_main:
            signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
    if caught.signum is not None:
        raise KeyboardInterrupt


@contextmanager
def watched_signals() -> Iterator[Caught]:
    """While inside, SIGINT and SIGTERM are noted and nothing else; a second signal raises."""
    caught = Caught()

    def note(signum: int, frame: FrameType | None) -> None:
        if caught.signum is not None:  # a second Ctrl-C does not wait for the step to end
            raise KeyboardInterrupt
        caught.signum = signum

    with handled_by(note):
        yield caught
