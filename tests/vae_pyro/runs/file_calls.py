"""File calls under a folder, counted, and made to fail at the n-th one: a full disk, or a process that is killed."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
_watching: list["FileCalls"] = []
_installed: list[bool] = []


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it, and no file call after it has an effect."""


class FileCalls:
    """Calls that change a folder.

    Args:
        folder: whose files count.
        fail_at: number of the call that fails, from 0; ``None`` lets all pass.
        how: ``full`` refuses every call that makes something, from that one on, as a disk without space does;
            ``once`` refuses that call alone; ``killed`` raises `KilledError` there and at every later call.

    Attributes:
        seen: the calls, as words.
    """

    def __init__(self, folder: Path, fail_at: int | None, how: Literal["full", "once", "killed"]) -> None:
        self.folder, self.fail_at, self.how = str(folder.resolve()), fail_at, how
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not self._writes(arguments):
            return
        paths = [os.path.abspath(name) for name in arguments[:2] if isinstance(name, str | os.PathLike)]  # noqa: PTH100 (no file call)
        if not any(path == self.folder or path.startswith(self.folder + os.sep) for path in paths):
            return
        number = len(self.seen)
        self.seen.append(f"{event} {Path(paths[0]).name}")
        if self.fail_at is None or number < self.fail_at:
            return
        if self.how == "killed":
            raise KilledError(self.seen[-1])
        makes = event in ("open", "os.mkdir", "os.link")
        if number == self.fail_at or (self.how == "full" and makes):
            raise OSError(errno.ENOSPC, "No space left on device", paths[0])

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        _, mode, flags = arguments
        changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        return any(letter in mode for letter in "wxa+") if isinstance(mode, str) else bool(flags & changing)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for one in _watching:
        one(event, arguments)


@contextmanager
def file_calls(
    folder: Path, fail_at: int | None = None, how: Literal["full", "once", "killed"] = "full"
) -> Iterator[FileCalls]:
    """While inside, calls that change the folder are counted, and fail from the given one on."""
    if not _installed:  # an audit hook stays until the process ends; it does nothing outside of this block
        sys.addaudithook(_hook)
        _installed.append(True)
    calls = FileCalls(folder, fail_at, how)
    _watching.append(calls)
    try:
        yield calls
    finally:
        _watching.remove(calls)
