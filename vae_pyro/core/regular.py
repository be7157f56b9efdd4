"""Files to read are files: pipes, sockets and devices never end, or never begin."""

import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_regular(path: Path) -> None:
    """Refuse to read what is neither a file nor a folder; of what is not there, reading says so.

    Raises:
        ValueError: a named pipe, a socket or a device.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return
    if kind in _KINDS:
        raise ValueError(f"{str(path)!r} is {_KINDS[kind]}; save what it gives as a file, and name that")


def require_small(path: Path, most: int, what: str) -> None:
    """Refuse a file of settings or the like that is far longer than any of its kind.

    Args:
        path: of the file; one that is not there is left to reading.
        most: bytes.
        what: the file is, as a message names it.

    Raises:
        ValueError: it is no file, or longer; the message names the size.
    """
    require_regular(path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return
    if size > most:
        raise ValueError(f"{str(path)!r} has {size:,} bytes, and {what} at most {most:,}; is it another file?")
