"""Memory of this process, as Linux counts it."""

from pathlib import Path

from benchmarks.worker import peak_memory


def resident() -> int:
    """Resident memory of this process, in bytes; where the system does not say, its peak."""
    found = _status("VmRSS")
    return peak_memory() if found is None else found


def peak() -> int:
    """Peak of resident memory since `forget_peak`, in bytes.

    Not ``ru_maxrss``: that of a child begins with what its parent held.
    """
    found = _status("VmHWM")
    return peak_memory() if found is None else found


def forget_peak() -> None:
    """Let the peak be what is resident now, where the system can do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def private() -> int:
    """Bytes that only this process holds: libraries that others have loaded as well do not count."""
    found = [_status(name, "smaps_rollup") for name in ("Private_Clean", "Private_Dirty")]
    return sum(value or 0 for value in found)


def _status(name: str, file: str = "status") -> int | None:
    """Bytes of a line of ``/proc/self``; ``None`` where there is none."""
    try:
        lines = Path("/proc/self", file).read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * 1024 if found else None
