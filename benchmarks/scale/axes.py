"""The axes of `benchmarks.scale`: the sizes of a training step that are varied, and their points."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.scale.point import Point
from benchmarks.speed.task import PIXELS

_SIDE, _SEED = 28, 0
_WRITE_ROWS = 100_000
_SPARE_DISK = 1.2


@dataclass(frozen=True)
class Plan:
    """Extent of the measurements.

    Attributes:
        device: ``cpu`` or ``cuda``.
        rounds: rounds through all points of an axis.
        seconds: least duration of a measurement.
        quick: few small points, not compiled: a trial run.
        large: stream 1e7 rows as well.
        scratch: folder for the streamed files.
        deadline: on `time.monotonic`'s clock; no axis starts after it.
    """

    device: str
    rounds: int
    seconds: float
    quick: bool
    large: bool
    scratch: Path
    deadline: float


@dataclass(frozen=True)
class Sweep:
    """One axis.

    Attributes:
        title: of its table.
        unit: of x.
        about: settings that all points share.
        points: the points of a plan.
    """

    title: str
    unit: str
    about: str
    points: Callable[[Plan], list[Point]]


def _along(field: str, values: Sequence[int], quick: Sequence[int], **fixed: Any) -> Callable[[Plan], list[Point]]:
    def points(plan: Plan) -> list[Point]:
        common_part = {"device": plan.device, "seconds": plan.seconds, "compile": not plan.quick, **fixed}
        if plan.quick:
            common_part["rows"] = 512
        return [
            Point(x=value, label=f"{value:,}", **{**common_part, field: value})
            for value in (quick if plan.quick else values)
        ]

    return points


def _processes(plan: Plan) -> list[Point]:
    most = common.available_cores()
    if plan.device == "cuda":
        import torch

        most = torch.cuda.device_count()
    counts = [count for count in (1, 2, 4, 8) if count <= most]
    base = Point(1, "1", plan.device, seconds=plan.seconds, compile=not plan.quick)
    if plan.quick:
        base = replace(base, rows=512)
    # One process takes its steps as several do: batch by batch, from its own loader.
    points = [base]
    for count in counts[1:]:
        points.append(replace(base, x=count, label=f"{count}, batch shared", processes=count))
        points.append(replace(base, x=count, label=f"{count}, batch each", processes=count, batch=base.batch * count))
    return points


def _rows(plan: Plan) -> list[Point]:
    sizes = [2_000] if plan.quick else [1_000, 10_000, 100_000, 300_000, 1_000_000]
    points = []
    for size in [*sizes, *([10_000_000] if plan.large else [])]:
        file = plan.scratch / f"{size}.npy"
        write_rows(file, size)
        base = Point(size, "", plan.device, source=str(file), seconds=plan.seconds, compile=not plan.quick,
                     limit=10 if plan.quick else 700)  # fmt: skip
        if size <= 1_000_000:
            points.append(replace(base, label=f"{size:,} in memory"))
        points.append(replace(base, label=f"{size:,} streamed", stream=True))
    return points


def write_rows(file: Path, rows: int) -> None:
    """Write random bytes as a ``.npy`` file of shape ``(rows, 28, 28)``, block by block, without holes.

    Raises:
        ValueError: the disk is too small; the message gives the required space.
    """
    required, free = rows * PIXELS * _SPARE_DISK, shutil.disk_usage(file.parent).free
    if free < required:
        raise ValueError(
            f"{rows:,} rows require {required / 2**30:.1f} GiB under {str(file.parent)!r}, which has "
            f"{free / 2**30:.1f} GiB free; name another folder with --scratch"
        )
    words = np.random.SFC64(_SEED)
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, _SIDE, _SIDE)}
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, rows, _WRITE_ROWS):
            size = min(_WRITE_ROWS, rows - start) * PIXELS
            out.write(words.random_raw((size + 7) // 8).view(np.uint8)[:size].data)


SWEEPS = {
    "batch": Sweep("Batch", "data in a step", "8,192 rows in memory, `run_epoch`",
                   _along("batch", (16, 64, 256, 1024, 4096), (16, 64))),
    "latent": Sweep("Latent dimension", "dimensions", "batch 128, `run_epoch`",
                    _along("latent", (2, 8, 32, 128, 512), (2, 8))),
    "particles": Sweep("Particles", "draws for each datum", "batch 128, `run_epoch`",
                       _along("particles", (1, 2, 4, 8, 16), (1, 2), rows=4096)),
    "ensemble": Sweep("Ensemble", "members", "batch 128 for each, of its own, as `fit_ensemble` steps",
                      _along("members", (1, 2, 4, 8), (1, 2), rows=4096)),
    "processes": Sweep("Processes", "processes", "batch 128, shared by all or for each; one thread in each",
                       _processes),
    "rows": Sweep("Rows", "rows of 784 bytes", "batch 128, `load_data` of a `.npy` file, stepped through as `fit` does",
                  _rows),
}  # fmt: skip
