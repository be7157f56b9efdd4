"""A point of `benchmarks.scale`: what it is to measure, and the process of its own that does so."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.work import Net
from benchmarks.worker import Worker

HIDDEN = (400,)


@dataclass(frozen=True)
class Point:
    """What one process is to measure.

    Attributes:
        x: its place on the axis.
        label: of its row.
        device: ``cpu`` or ``cuda``.
        batch: data in a step of all processes together.
        latent: dimension of z.
        particles: draws of z for each datum.
        members: of an ensemble, each with batches of its own; 0 is a single run.
        processes: that take a step together.
        rows: of synthetic data in memory.
        source: ``.npy`` file to load instead.
        stream: leave that file where it is.
        limit: most steps that are taken of an epoch.
        seconds: that one measurement is to take at least, in whole epochs or ``limit`` steps.
        compile: let Inductor compile the step.
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
    """Floating-point operations of a step's products: forward, gradient of weights, gradient of inputs.

    The first layer's inputs are data and want no gradient; the decoder's rows are those of all particles.
    """
    layers = Net(HIDDEN, point.latent, "relu").layers
    encoder = len(HIDDEN) + 1
    total = 0.0
    for number, (inputs, outputs) in enumerate(layers):
        rows = point.batch * (point.particles if number >= encoder else 1)
        total += 2.0 * rows * inputs * outputs * (2 if number == 0 else 3)
    return total * max(point.members, 1)


class Process(Worker):
    """A point in a process of its own, driven over a pipe as `benchmarks.worker` does.

    Args:
        point: to measure.
        cache: folder of what Inductor has compiled.
    """

    def __init__(self, point: Point, cache: Path) -> None:  # a `Worker` would start a contender instead
        self.name, self.point = point.label, point
        self._scratch = tempfile.TemporaryDirectory(prefix="vae_pyro-benchmark-", ignore_cleanup_errors=True)
        self._log = (Path(self._scratch.name) / "stderr").open("w+")
        started_by_others = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        environment = {key: value for key, value in os.environ.items() if key not in started_by_others}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        if point.device == "cpu":
            one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            environment |= {**one, "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.point_worker", json.dumps(asdict(point))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[1],
            env=environment,
        )
