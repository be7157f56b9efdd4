"""A folder that one process writes to at a time."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vae_pyro.core.files import RunError, leftovers
from vae_pyro.parallel.locks import lock


class ExclusiveFolder:
    """A folder with one writer, and no files that killed writers have left.

    Args:
        path: the folder.
        identity: file that a folder in use has.
    """

    def __init__(self, path: str | Path, identity: str) -> None:
        self.path = Path(path)
        self.config_file = self.path / identity
        self._lock = self.path / "state" / "lock"
        self._held = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is written whole, see `vae_pyro.core.files.atomically`."""
        return tuple(value for name, value in vars(self).items() if name.endswith("_file"))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer of the folder; nested uses of this object count as one.

        What was left by processes that were killed is removed. A folder that is not in use has no lock.

        Raises:
            RunError: another process, or another part of this one, writes to the folder.
            OSError: the folder cannot be written.
        """
        with ExitStack() as stack:
            if self.config_file.exists():
                self._hold(stack)
            yield

    @contextmanager
    def claimed(self, *, overwrite: bool = False) -> Iterator[None]:
        """Be the one writer of a folder that is made, or made anew.

        Raises:
            RunError: the folder is in use and ``overwrite`` is false, or holds files of another kind; see `writing`.
        """
        self._require_free(overwrite)
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._hold(stack)
            self._require_free(overwrite)  # another process may have been faster
            yield

    def _require_free(self, overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{str(self.path)!r} is a file; name a folder")
        held = sorted(item.name for item in self.path.iterdir()) if self.path.exists() else []
        # Left by a process that was killed before the run had begun.
        own = {"state", *(file.name for file in leftovers(self.config_file))}
        foreign = [name for name in held if name not in own]
        if foreign and not self.config_file.exists():
            raise RunError(f"{str(self.path)!r} holds {foreign[0]!r} and no run; name an empty or a new folder")
        if foreign and not overwrite:
            raise RunError(
                f"{str(self.path)!r} holds a run; pass --resume (resume=True) or --overwrite (overwrite=True)"
            )

    def _hold(self, stack: ExitStack) -> None:
        if not self._held:
            stack.enter_context(self._locked())
            for file in self.files:
                for leftover in leftovers(file):
                    leftover.unlink(missing_ok=True)
        self._held += 1
        stack.callback(self._release)

    def _release(self) -> None:
        self._held -= 1

    def _locked(self) -> ExitStack:
        self._lock.parent.mkdir(exist_ok=True)
        try:
            held = lock(self._lock, wait=False)
        except ValueError as error:
            warnings.warn(f"{error}; nothing keeps a second writer out of {str(self.path)!r}", stacklevel=5)
            return ExitStack()
        if held is None:
            holder = " ".join(self._lock.read_text(errors="replace").split())
            raise RunError(
                f"another process ({holder or 'unknown'}) writes to the run in {str(self.path)!r}; wait until it has "
                "ended, or name another folder"
            )
        return held
