"""Compiled programs on disk: found by what they are made of, checked before they run, bounded in number and size.

An entry is a shared object, whose name carries its SHA-256, and a header beside it that names it. Both are written
under a lock, and each is whole or absent. A folder that others can write to is not used: what is in it would run.
"""

import contextlib
import hashlib
import os
import platform
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from vae_pyro.core.files import RunError, read_json, write_atomically, write_json
from vae_pyro.parallel.locks import locked

MAX_PROGRAMS = 128
"""Programs that are kept; of more, those go that have not been used for longest."""
MAX_BYTES = 256 * 2**20
"""Size of all of them together, likewise."""
_FORMAT = "vae_pyro program 1"
_WARNED: set[str] = set()


class StoreWarning(UserWarning):
    """The folder of compiled programs is not used."""


@dataclass(frozen=True)
class Header:
    """What is known of a stored program.

    Attributes:
        library: name of the shared object.
        host: where it was compiled.
        seconds: that compiling has taken.
        operators: in its graph.
    """

    library: str
    host: str
    seconds: float
    operators: int


def folder() -> Path | None:
    """Where programs are kept: ``compiled`` under ``VAE_PYRO_CACHE``, else under the user's cache folder.

    Returns:
        ``None`` where ``VAE_PYRO_CACHE`` is empty: nothing is kept.
    """
    named = os.environ.get("VAE_PYRO_CACHE")
    if named is not None:
        return Path(named) / "compiled" if named else None
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        return None
    return cache / "vae_pyro" / "compiled"


class ProgramStore:
    """The programs in one folder.

    Args:
        path: the folder, which is made when something is put there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls) -> Self | None:
        """That of `folder`; ``None`` where there is none, or where it is not safe, of which a warning is given."""
        path = folder()
        if path is None:
            return None
        reason = _insecure(path)
        if reason is None:
            return cls(path)
        if str(path) not in _WARNED:
            _WARNED.add(str(path))
            warnings.warn(
                f"compiled programs in {str(path)!r} are not used: {reason}; take the folder for yourself alone "
                "(chmod 700), name another one with VAE_PYRO_CACHE, or set it to nothing to keep none",
                StoreWarning,
                stacklevel=2,
            )
        return None

    def find(self, key: str) -> Path | None:
        """The shared object of a program, checked; ``None`` where there is none, or another than was written."""
        header = self._header(self.path / f"{key}.json")
        if header is None:
            return None
        library = self.path / header.library
        try:
            if _insecure(library) is not None or _library_name(key, library.read_bytes()) != header.library:
                return None
            os.utime(self.path / f"{key}.json")
        except OSError:
            return None
        return library

    def holds(self, key: str) -> bool:
        """Whether there is a program, without looking at it."""
        header = self._header(self.path / f"{key}.json")
        return header is not None and (self.path / header.library).is_file()

    def put(self, key: str, content: bytes, *, seconds: float, operators: int) -> Path:
        """Keep a shared object; the path of it.

        Raises:
            OSError: the folder cannot be written to.
            ValueError: it cannot be locked.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = _library_name(key, content)
        with locked(self.path / ".lock"):
            write_atomically(self.path / name, content)
            header = Header(name, platform.node(), seconds, operators)
            write_json(self.path / f"{key}.json", {"format": _FORMAT, **asdict(header)})
            for file in (name, f"{key}.json"):
                (self.path / file).chmod(0o700 if file == name else 0o600)
            self._evict(self.path / f"{key}.json")
        return self.path / name

    def headers(self) -> Iterator[Header]:
        """Those of all programs."""
        for file in self.path.glob("*.json"):
            header = self._header(file)
            if header is not None:
                yield header

    def _header(self, file: Path) -> Header | None:
        if _insecure(file) is not None:
            return None
        with contextlib.suppress(RunError, KeyError, TypeError, ValueError):
            held = read_json(file)
            header = Header(held["library"], held["host"], float(held["seconds"]), int(held["operators"]))
            if held["format"] == _FORMAT and Path(header.library).name == header.library:
                return header
        return None

    def _evict(self, newest: Path) -> None:
        """Delete what has not been used for longest, and what no header names; the lock is held."""
        used, count, size = {newest.name}, 0, 0
        entries = sorted(self.path.glob("*.json"), key=lambda file: (file == newest, _modified(file)), reverse=True)
        for file in entries:
            header = self._header(file)
            library = None if header is None else self.path / header.library
            if library is None or not library.is_file():
                continue
            count, size = count + 1, size + library.stat().st_size
            if file == newest or (count <= MAX_PROGRAMS and size <= MAX_BYTES):
                used |= {file.name, library.name}
        for file in self.path.iterdir():
            if file.name not in used and file.name != ".lock" and file.suffix in (".json", ".so", ".tmp"):
                with contextlib.suppress(OSError):
                    file.unlink()


def kept(load: Callable[[ProgramStore], Path | None]) -> Path | None:
    """What a use of the default store gives; ``None`` where there is no store, or it cannot be used."""
    store = ProgramStore.default()
    if store is None:
        return None
    try:
        return load(store)
    except (OSError, ValueError):
        return None


def _library_name(key: str, content: bytes) -> str:
    return f"{key[:32]}-{hashlib.sha256(content).hexdigest()}.so"


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _insecure(path: Path) -> str | None:
    """Why others than the user may have written to a path that is there; ``None`` where they cannot."""
    try:
        status = path.stat()
    except OSError:
        return None  # not there
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it (mode {stat.S_IMODE(status.st_mode):o})"
    return None
