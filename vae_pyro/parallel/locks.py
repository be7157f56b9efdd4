"""Locks between processes that share a folder, on one machine or several: they end with a process, however it ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def lock(file: Path, *, wait: bool) -> IO[str] | None:
    """Hold a file until it is closed or the process ends; ``None`` where another one holds it.

    The file is made, and says which process has it.

    Raises:
        ValueError: its file system has no locks.
    """
    held = file.open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        held.close()
        return None
    except OSError as error:
        held.close()
        raise ValueError(
            f"the file system of {str(file)!r} has no locks ({error}); take a folder on one that has, such as a local "
            "disk, NFS 4, or Lustre mounted with flock"
        ) from None
    held.truncate(0)
    held.write(f"{os.getpid()} {socket.gethostname()}\n")  # for whoever looks for the process
    held.flush()
    return held


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file for a while; its folder is made.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
        ValueError: see `lock`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    held = lock(file, wait=wait)
    if held is None:
        raise BlockingIOError(f"another process holds {str(file)!r}")
    with held:
        yield


def is_held(file: Path) -> bool:
    """Whether a process holds a file; it is neither made nor changed."""
    try:
        with file.open() as looked_at:
            fcntl.flock(looked_at, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
