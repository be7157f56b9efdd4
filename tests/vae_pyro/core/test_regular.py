"""Pipes, sockets and devices are refused without a look inside, which would never end."""

import os
import socket
from pathlib import Path

import pytest

from vae_pyro.core.regular import require_regular, require_small


def test_only_files_and_folders_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        for name in (".", "file", "link", "absent", "a\0b"):
            require_regular(Path(name))
        for name, kind in (("pipe", "a named pipe"), ("zero", "a device"), ("socket", "a socket")):
            with pytest.raises(ValueError, match=f"'{name}' is {kind}; save what it gives as a file"):
                require_regular(Path(name))
    require_small(Path("file"), 5, "a note")
    with pytest.raises(ValueError, match="'link' has 5 bytes, and a note at most 4; is it another file"):
        require_small(Path("link"), 4, "a note")
    with pytest.raises(ValueError, match="a named pipe"):
        require_small(Path("pipe"), 5, "a note")
