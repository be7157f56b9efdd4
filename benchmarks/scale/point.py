"""A point of `benchmarks.scale`, and the process that measures it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.process import MeasuringProcess
from benchmarks.speed.task import Net

HIDDEN = (400,)


@dataclass(frozen=True)
class Point:
    """One setting of the axis.

    Attributes:
        x: value on the axis.
        label: of its row.
        device: ``cpu`` or ``cuda``.
        batch: data in a step of all processes together.
        latent: dimension of z.
        particles: draws of z for each datum.
        members: members of an ensemble, each with its own batches; 0 is a single run.
        processes: processes that take a step together.
        rows: rows of synthetic data in memory.
        source: ``.npy`` file to load instead.
        stream: read the rows of that file from the disk.
        limit: largest number of steps of an epoch.
        seconds: least duration of a measurement, in whole epochs or ``limit`` steps.
        compile: compile the step with Inductor.
    """

    x: int
    label: str
    device: str = "cpu"
    batch: int = 128
    latent: int = 20
    particles: int = 1
    members: int = 0
    processes: int = 1
    rows: int = 8192
    source: str | None = None
    stream: bool = False
    limit: int | None = None
    seconds: float = 0.5
    compile: bool = True


def flops_of_step(point: Point) -> float:
    """Floating-point operations of the matrix products of a step: forward, gradient of weights, gradient of inputs.

    The inputs of the first layer are data and need no gradient; the decoder has a row for each particle.
    """
    layers = Net(HIDDEN, point.latent, "relu").layers
    encoder = len(HIDDEN) + 1
    total = 0.0
    for number, (inputs, outputs) in enumerate(layers):
        rows = point.batch * (point.particles if number >= encoder else 1)
        total += 2.0 * rows * inputs * outputs * (2 if number == 0 else 3)
    return total * max(point.members, 1)


class PointProcess(MeasuringProcess):
    """The parent's end of a point: ``setup``, ``measure`` and ``parts`` in a process of its own.

    Args:
        point: to measure.
        cache: folder of Inductor's cache.
    """

    def __init__(self, point: Point, cache: Path) -> None:
        launchers = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        environment = {key: value for key, value in os.environ.items() if key not in launchers}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        environment["VAE_PYRO_CACHE"] = str(cache / "programs")
        if point.device == "cpu":
            one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            environment |= {**one, "CUDA_VISIBLE_DEVICES": ""}
        super().__init__(point.label, ["benchmarks.scale.point_worker", json.dumps(asdict(point))], environment)
