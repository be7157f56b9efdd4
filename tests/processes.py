"""What tests of processes share: waiting for what they do, and whether they live."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAIT_SECONDS = 300  # only a failure takes so long, also on a machine that does much else


def wait_for(condition: Callable[[], Any]) -> Any:
    """What ``condition`` gives, once it is true."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
