"""The folder of compiled programs: checked, bounded, shared by processes, and the user's alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_pyro.compilation import store
from vae_pyro.compilation.store import ProgramStore, StoreWarning, folder


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramStore:
    monkeypatch.setenv("VAE_PYRO_CACHE", str(tmp_path))
    made = ProgramStore.default()
    assert made is not None
    return made


def put(kept: ProgramStore, key: str, content: bytes) -> Path:
    return kept.put(key, content, seconds=2.0, operators=10)


def test_what_is_put_is_found_and_nothing_else(kept: ProgramStore) -> None:
    assert kept.find("a") is None
    path = put(kept, "a", b"program")
    assert kept.find("a") == path
    assert path.read_bytes() == b"program"
    assert kept.holds("a")
    assert kept.find("b") is None
    assert [(header.seconds, header.operators) for header in kept.headers()] == [(2.0, 10)]
    assert oct(kept.path.stat().st_mode & 0o777) == "0o700"
    assert all(not file.stat().st_mode & 0o077 for file in kept.path.glob("*.*") if file.name != ".lock")


def test_a_program_compiled_anew_takes_the_place_of_the_old_one(kept: ProgramStore) -> None:
    old, new = put(kept, "a", b"old"), put(kept, "a", b"new")
    assert kept.find("a") == new
    assert not old.exists()


@pytest.mark.parametrize("file", ["*.so", "*.json"])
@pytest.mark.parametrize("content", [b"", b"progran", b"program more", None])
def test_what_was_changed_is_not_found(file: str, content: bytes | None, kept: ProgramStore) -> None:
    put(kept, "a", b"program")
    (path,) = kept.path.glob(file)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert kept.find("a") is None
    put(kept, "a", b"program")
    assert kept.find("a") is not None


def test_a_header_cannot_name_a_file_elsewhere(kept: ProgramStore, tmp_path: Path) -> None:
    path = put(kept, "a", b"program")
    moved = path.rename(tmp_path / path.name)
    header = {"format": "vae_pyro program 1", "library": f"../{moved.name}", "host": "h", "seconds": 1, "operators": 1}
    store.write_json(kept.path / "a.json", header)
    (kept.path / "a.json").chmod(0o600)
    assert kept.find("a") is None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_ignored_and_says_so_once(
    mode: int, kept: ProgramStore, recwarn: pytest.WarningsRecorder
) -> None:
    put(kept, "a", b"program")
    kept.path.chmod(mode)
    store._WARNED.clear()
    assert ProgramStore.default() is None
    assert ProgramStore.default() is None
    (warning,) = recwarn.list
    assert warning.category is StoreWarning
    assert f"others can write to it (mode {mode:o})" in str(warning.message)
    assert "VAE_PYRO_CACHE" in str(warning.message)
    kept.path.chmod(0o700)
    assert ProgramStore.default() is not None


def test_a_folder_or_a_file_of_another_user_is_ignored(kept: ProgramStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(kept, "a", b"program")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    store._WARNED.clear()
    assert kept.find("a") is None
    with pytest.warns(StoreWarning, match="it belongs to user"):
        assert ProgramStore.default() is None


def test_what_has_not_been_used_for_longest_goes(kept: ProgramStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PROGRAMS", 3)
    for number, key in enumerate("abc"):
        put(kept, key, key.encode())
        os.utime(kept.path / f"{key}.json", (number, number))
    assert kept.find("a") is not None  # which is a use
    (kept.path / ".d.json.0123.tmp").write_text("left by a process that was killed")
    put(kept, "d", b"d")
    assert [kept.holds(key) for key in "abcd"] == [True, False, True, True]
    assert len(list(kept.path.iterdir())) == 2 * 3 + 1
    monkeypatch.setattr(store, "MAX_BYTES", 10)
    put(kept, "e", b"0123456789" * 2)
    assert [kept.holds(key) for key in "abcde"] == [False, False, False, False, True]


def test_without_a_home_or_with_an_empty_name_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_PYRO_CACHE", "")
    assert ProgramStore.default() is None
    monkeypatch.delenv("VAE_PYRO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "vae_pyro" / "compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(store.Path, "home", homeless)
    assert folder() is None


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAE_PYRO_CACHE", str(tmp_path / "file"))
    assert store.kept(lambda kept: kept.put("a", b"program", seconds=1.0, operators=1)) is None


_WRITERS = """
import os, sys
from pathlib import Path
from vae_pyro.compilation import store
store.MAX_PROGRAMS = 3
kept = store.ProgramStore(Path(sys.argv[1]))
children = []
for child in range(2):
    if not (pid := os.fork()):
        for number in range(8):
            key = f"k{number % 4}"
            kept.put(key, f"{key} {child}".encode() * 1000, seconds=1.0, operators=1)
            found = kept.find(key)
            if found is not None and not found.read_bytes().startswith(key.encode()):
                os._exit(1)
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
assert len(list(kept.headers())) == 3
assert all(kept.find(file.stem) for file in kept.path.glob("*.json"))
assert len(list(kept.path.glob("*.so"))) == 3
"""


def test_processes_that_write_at_once_leave_whole_programs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _WRITERS, str(tmp_path / "programs")], check=True, timeout=60)
