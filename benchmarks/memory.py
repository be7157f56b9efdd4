"""Memory of this process, as Linux reports it."""

import resource
import sys
from pathlib import Path


def resident() -> int:
    """Resident memory of this process in bytes; its peak where the system does not report it."""
    found = _status("VmRSS")
    return lifetime_peak() if found is None else found


def lifetime_peak() -> int:
    """Peak of resident memory since the start of this process, in bytes."""
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_bytes if sys.platform == "darwin" else peak_bytes * 1024


def peak() -> int:
    """Peak of resident memory since `reset_peak`, in bytes.

    Unlike ``ru_maxrss``, it does not start with the memory of the parent process.
    """
    found = _status("VmHWM")
    return lifetime_peak() if found is None else found


def reset_peak() -> None:
    """Set the peak to the present resident memory, where the system supports this."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def private() -> int:
    """Bytes that only this process holds, without libraries that are shared with other processes."""
    found = [_status(name, "smaps_rollup") for name in ("Private_Clean", "Private_Dirty")]
    return sum(value or 0 for value in found)


def _status(name: str, file: str = "status") -> int | None:
    """Bytes of a line of ``/proc/self``; ``None`` where it does not exist."""
    try:
        lines = Path("/proc/self", file).read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * 1024 if found else None
