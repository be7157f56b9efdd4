"""Functions that all benchmarks share: description of the machine, statistics of repeats, results on disk, tables."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_VERSIONED = ("vae_pyro", "torch", "torchvision", "pyro-ppl", "numpyro", "jax", "jaxlib", "numpy")
# Instructions that determine the rate of float32 products.
_VECTOR_FLAGS = ("avx2", "avx512f", "amx_bf16", "neon", "asimd")


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, memory, accelerator, versions and date; nothing that identifies the machine or its owner."""
    from vae_pyro.core.versions import installed_versions

    described: dict[str, Any] = {
        "system": platform.system(),
        "processor": _processor(),
        "vector instructions": _vector_instructions(),
        "cores": available_cores(),
        "memory GiB": _memory(),
        "python": platform.python_version(),
        "versions": installed_versions(_VERSIONED),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if device.startswith("cuda"):
        import torch

        described["accelerator"] = torch.cuda.get_device_name(device)
        described["versions"]["cuda"] = torch.version.cuda
    return described


def available_cores() -> int:
    """Cores that this process may run on, the number of threads of torch and XLA."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_info(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key) and ":" in line), "")


def _processor() -> str:
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    family, model = _cpu_info("cpu family"), _cpu_info("model\t")
    # A virtual machine may report only "AMD EPYC"; family and model identify the generation.
    return f"{name} (family {family}, model {model})" if family and model else name


def _vector_instructions() -> list[str]:
    present = (_cpu_info("flags") or _cpu_info("Features")).split()
    return [flag for flag in _VECTOR_FLAGS if flag in present]


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError, AttributeError):
        return None


def revision() -> str | None:
    """Git revision of the package that was measured, with ``-dirty`` where files differ from it."""
    from vae_pyro.runs.folder import provenance

    found = provenance()["git_revision"]
    return None if found is None else str(found)


def machine_line(described: dict[str, Any]) -> str:
    """A `machine` in one line for the notes of a table."""
    parts = [
        described["processor"],
        f"{described['cores']} cores",
        *described["vector instructions"],
        f"{described['memory GiB']} GiB",
    ]
    if "accelerator" in described:
        parts.insert(0, described["accelerator"])
    versions = ", ".join(f"{name} {number}" for name, number in described["versions"].items())
    return f"{', '.join(str(part) for part in parts)}; Python {described['python']}, {versions}; {described['date']}"


@dataclass(frozen=True)
class Spread:
    """Median and range of repeats.

    Attributes:
        median: of the repeats.
        low: the least.
        high: the greatest.
        count: number of repeats.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one or more repeats."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, digits: int = 2) -> str:
        """``median (low..high)``."""
        if self.count == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text, the others numbers, aligned right."""
    rule = ["---" if number < left else "---:" for number in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def replace_block(file: Path, name: str, content: str) -> None:
    """Replace the content between the markers of ``name`` in a Markdown file.

    A file that does not exist is created, with the markers.

    Raises:
        ValueError: the file has no such markers, or more than one pair.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{begin}\n{end}\n")
    text = file.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{str(file)!r} must contain the markers {begin!r} and {end!r} once, in this order; add them")
    before, after = text.split(begin)[0], text.split(end)[1]
    _write(file, f"{before}{begin}\n{content.strip()}\n{end}{after}")


def write_json(file: Path, payload: dict[str, Any]) -> None:
    """Write a result atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, json.dumps(payload, indent=1) + "\n")


def read_json(file: Path) -> dict[str, Any] | None:
    """An earlier result, or ``None``."""
    return json.loads(file.read_text()) if file.exists() else None


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def duration(seconds: float) -> str:
    """``95`` as ``1 min 35 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
