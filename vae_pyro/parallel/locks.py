"""Locks between processes that share a folder, on one machine or several: they end with a process, however it ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_POLL_SECONDS = 0.02
# The file could not be made or opened, whatever locks its file system has.
_OF_OPENING = {
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG,
}  # fmt: skip


def lock(file: Path, *, wait: bool) -> ExitStack | None:
    """Hold a file until what is returned is closed, or the process ends; ``None`` where another one holds it.

    The file is made, and says which process has it.

    Raises:
        ValueError: its file system has no locks.
        RuntimeError: ``wait`` is true, and this thread holds the file already.
    """
    held = FileLock(
        file,
        poll_interval=_POLL_SECONDS,
        thread_local=False,
        fallback_to_soft=False,  # a soft lock would outlive a process that is killed
        preserve_lock_file=True,
        on_acquired=_sign,
    )
    stack = ExitStack()
    try:
        stack.enter_context(held.acquire(blocking=wait))
    except Timeout:
        return None
    except OSError as error:
        if error.errno in _OF_OPENING:
            raise
        raise ValueError(
            f"the file system of {str(file)!r} has no locks ({error}); take a folder on one that has, such as a local "
            "disk, NFS 4, or Lustre mounted with flock"
        ) from None
    return stack


def _sign(descriptor: int) -> None:
    """Say who holds a lock, for whoever looks for the process."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


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
    """Whether a process holds a file; it is neither made nor changed.

    The question is a shared lock, which filelock does not have: several processes may ask at once, without taking one
    another for holders, and of files that they cannot write.
    """
    try:
        with file.open() as looked_at:
            fcntl.flock(looked_at, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
