"""Locks between processes: one holder at a time, gone with the process, and a word where a file system has none."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_for
from vae_pyro.parallel.locks import is_held, lock, locked

HOLDER = """
import sys, time
from pathlib import Path
from vae_pyro.parallel.locks import lock
held = lock(Path(sys.argv[1]), wait=True)
time.sleep(600)
"""


def test_one_process_holds_a_file_until_it_dies(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not is_held(file)
    assert not file.exists()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], cwd=Path(__file__).parents[3])
    try:
        wait_for(lambda: is_held(file) and file.read_text())
        assert file.read_text().split()[0] == str(holder.pid)
        assert lock(file, wait=False) is None
        with pytest.raises(BlockingIOError, match="another process holds"), locked(file, wait=False):
            raise AssertionError("it is held")
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    wait_for(lambda: not is_held(file))
    held = lock(file, wait=True)
    assert held is not None
    assert file.read_text().split()[0] == str(os.getpid())
    held.close()


def test_a_lock_ends_with_its_block_and_makes_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lock"
    with locked(file):
        assert is_held(file)
        assert lock(file, wait=False) is None
    assert not is_held(file)
    with pytest.raises(KeyError), locked(file):
        raise KeyError
    assert not is_held(file)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ValueError, match="the file system of .*lock.* has no locks .*Lustre mounted with flock"):
        lock(tmp_path / "lock", wait=True)
