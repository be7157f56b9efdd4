"""Signals that end a fit between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
def watched_signals() -> Iterator[Caught]:
    """While inside, SIGINT and SIGTERM are noted and nothing else; a second SIGINT raises."""
    # Python delivers signals to the main thread alone; a fit in another thread leaves them to it.
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if caught.signum is not None:  # a second Ctrl-C does not wait for the step to end
            raise KeyboardInterrupt
        caught.signum = signum

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
