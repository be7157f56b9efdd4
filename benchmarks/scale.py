"""``python -m benchmarks.scale``: time and memory of a training step against what makes it larger, one axis at a time.

Each point has a process of its own, so that its peak of memory is its own; rounds alternate between the points of an
axis, as in `benchmarks.speed`. Exponents are least squares on logarithms. What was not measured but computed, for
machines that are not here, stands apart and says so.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import log, nan, sqrt
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.work import ADAM_EPS, BETAS, LEARNING_RATE, PIXELS, Net
from benchmarks.worker import Worker, WorkerError, peak_memory

_HIDDEN, _SIDE, _SEED = (400,), 28, 0
_COMMANDS = ("setup", "measure", "parts", "stop")
_PROFILED_STEPS, _WARM_UP_STEPS = 100, 20
# Of long epochs so many are profiled: at batch 128, a window of a stream and what comes after it.
_MOST_PROFILED = 350
_KINDS = ("products", "optimizer", "other kernels", "reading", "sum over processes", "calls, noise, Python",
          "without a kernel")  # fmt: skip
# Of the rows of a file, this share is left out of training; `load_data` wants some.
_TEST = 0.05
# From so many rows on, both windows of a stream are full (`vae_pyro.windows.WINDOW_BYTES`), and its memory is final.
_WINDOWS_FULL = 100_000
_WRITE_ROWS = 100_000
_SPARE_DISK = 1.2


# --- laws -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slope:
    """A line through points by least squares.

    Attributes:
        slope: of the line, or, of logarithms, the exponent.
        se: its standard error from the residuals; NaN where two points leave none.
        intercept: at zero; of logarithms, the logarithm of the factor.
        low: least x.
        high: greatest x.
        count: number of points.
    """

    slope: float
    se: float
    intercept: float
    low: float
    high: float
    count: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the slope, by Student's t with ``count - 2`` degrees of freedom.

        The errors are taken as independent, normal and equal; where points lie off the line for a reason, the error
        holds that as well.
        """
        from scipy.stats import t

        half = float(t.ppf(0.5 + level / 2, self.count - 2)) * self.se if self.count > 2 else nan
        return self.slope - half, self.slope + half

    def text(self, digits: int = 2) -> str:
        """``0.98 ± 0.01 (16 to 4,096)``."""
        error = f" ± {self.se:,.{digits}f}" if self.count > 2 else ""
        return f"{self.slope:,.{digits}f}{error} ({self.low:,.0f} to {self.high:,.0f})"


def line(x: Sequence[float], y: Sequence[float]) -> Slope:
    """``y = intercept + slope x`` by least squares.

    Raises:
        ValueError: lengths that differ, or fewer than two different x.
    """
    if len(x) != len(y) or len(set(x)) < 2:
        raise ValueError(f"a slope wants as many y as x and two different x, got x {list(x)} and y {list(y)}")
    at, value = np.asarray(x, np.float64), np.asarray(y, np.float64)
    centred = at - at.mean()
    spread = float(centred @ centred)
    slope = float(centred @ value) / spread
    intercept = float(value.mean() - slope * at.mean())
    rest = value - intercept - slope * at
    se = sqrt(float(rest @ rest) / (len(at) - 2) / spread) if len(at) > 2 else nan
    return Slope(slope, se, intercept, float(at.min()), float(at.max()), len(at))


def power_law(x: Sequence[float], y: Sequence[float]) -> Slope:
    """``y = factor x**exponent`` by least squares on logarithms: each point counts by its relative error.

    Raises:
        ValueError: a number that is not positive, or as for `line`.
    """
    if min([*x, *y], default=0.0) <= 0:
        raise ValueError(f"a power law wants positive numbers, got x {list(x)} and y {list(y)}")
    found = line([log(value) for value in x], [log(value) for value in y])
    return replace(found, low=float(min(x)), high=float(max(x)))


# --- on paper ---------------------------------------------------------------------------------------------------------


def ring_all_reduce(processes: int, nbytes: float, bandwidth: float, latency: float) -> float:
    """Seconds in which a ring of processes sums a vector: ``2 (p - 1) / p * bytes / bandwidth + 2 (p - 1) latency``.

    Each process sends and receives ``(p - 1) / p`` of the vector twice, to scatter sums and to gather them, in
    ``2 (p - 1)`` messages. Additions are taken as free.

    Args:
        processes: p, at least 1.
        nbytes: of the vector.
        bandwidth: bytes a second that a process sends while it receives as many.
        latency: seconds of a message without content.

    Raises:
        ValueError: a number out of range.

    References:
        Thakur, Rabenseifner & Gropp 2005, Optimization of collective communication operations in MPICH,
        doi:10.1177/1094342005051521 (the model of latency and bandwidth).
        Patarasuk & Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations,
        doi:10.1016/j.jpdc.2008.09.002 (no algorithm sends less).
    """
    if processes < 1 or nbytes < 0 or bandwidth <= 0 or latency < 0:
        raise ValueError(
            f"a ring wants processes, bytes, a bandwidth above 0 and a latency, got {processes}, {nbytes}, "
            f"{bandwidth}, {latency}"
        )
    return 2 * (processes - 1) / processes * nbytes / bandwidth + 2 * (processes - 1) * latency


@dataclass(frozen=True)
class System:
    """A machine on paper. Everything in it is an assumption.

    Attributes:
        name: what it is.
        nodes: machines in it.
        per_node: processes on each.
        bandwidth: bytes a second in one direction, of the slowest link of the ring.
        latency: seconds of a message within a node.
        latency_between: seconds of a message between nodes; ``None`` takes what was measured here.
        rate: floating-point operations a second of a process; ``None`` takes the step that was measured here.
        sources: where the numbers come from.
    """

    name: str
    nodes: int
    per_node: int
    bandwidth: float
    latency: float
    latency_between: float | None
    rate: float | None
    sources: str

    @property
    def processes(self) -> int:
        """All of them."""
        return self.nodes * self.per_node


_H100 = "NVIDIA H100 data sheet (SXM: 67 TFLOP/s in float32, NVLink 900 GB/s and PCIe Gen5 128 GB/s, both directions)"
_NCCL = "latency of a ring's message as NCCL's own model has it (src/graph/tuning.cc, hwLat, Simple)"
SYSTEMS = (
    System("8 GPUs, NVLink", 1, 8, 450e9, 3.4e-6, 0.0, 67e12, f"{_H100}; {_NCCL}: 3.4 us"),
    System("8 GPUs, PCIe", 1, 8, 64e9, 5.7e-6, 0.0, 67e12, f"{_H100}; {_NCCL}: 5.7 us"),
    System(
        "64 nodes of 8 GPUs", 64, 8, 50e9, 3.4e-6, 9.6e-6, 67e12,
        f"NVIDIA ConnectX-7 data sheet: 400 Gbit/s for each GPU; {_NCCL}: 3.4 us within, 9.6 us between nodes",
    ),
    System(
        "64 nodes of one process", 64, 1, 25e9 / 8, 0.0, None, None,
        "25 Gbit/s Ethernet (IEEE 802.3by); latency measured here between processes of one machine, without a network; "
        "a node does what one process does here",
    ),
)  # fmt: skip


def on_paper(
    system: System,
    *,
    nbytes: float,
    step: float,
    batch: int,
    flops: float,
    measured_latency: float | None,
    batch_line: Slope | None,
    device: str,
) -> dict[str, Any] | None:
    """What a system would do with a step, computed from measured parts.

    A process sums its whole gradient after it has it, so nothing overlaps: a step takes its time alone and that of the
    sum. On a CPU a GPU's step is not known; its products at the rate of the data sheet are less than it, and so, the
    sum's time given, the efficiency is the least that there can be.

    Args:
        system: assumed.
        nbytes: that a step sums, measured.
        step: seconds of a step of one process, measured.
        batch: data in it.
        flops: floating-point operations of its products.
        measured_latency: seconds of a message between processes of one machine; ``None`` if it was not measured.
        batch_line: seconds of a step against its batch, measured; ``None`` if it was not.
        device: that ``step`` was measured on.

    Returns:
        Figures; ``None`` where a part of them was not measured.
    """
    between = measured_latency if system.latency_between is None else system.latency_between
    if between is None:
        return None
    # A flat ring crosses between nodes once for each node.
    hops, crossings = system.processes - 1, system.nodes - 1
    latency = ((hops - crossings) * system.latency + crossings * between) / hops
    summed = ring_all_reduce(system.processes, nbytes, system.bandwidth, latency)
    measured = system.rate is None or device != "cpu"
    alone = step if measured else flops / (system.rate or nan)
    shortest, enough = 9 * summed, None
    if not measured:
        enough = shortest / alone * batch
    elif batch_line is not None and batch_line.slope > 0:
        enough = max((shortest - batch_line.intercept) / batch_line.slope, 1.0)
    return {
        "system": system.name,
        "processes": system.processes,
        "assumed": {**asdict(system), "mean_latency": latency},
        "all_reduce_seconds": summed,
        "of_it_latency": 2 * hops * latency / summed,
        "step_seconds": alone,
        "step_measured": measured,
        "batch_per_process": batch,
        "weak_efficiency": alone / (alone + summed),
        "data_per_second": system.processes * batch / (alone + summed),
        "shortest_step_for_90_percent": shortest,
        "batch_for_90_percent": enough,
    }


# --- a point, in a process of its own ---------------------------------------------------------------------------------


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
    layers = Net(_HIDDEN, point.latent, "relu").layers
    encoder = len(_HIDDEN) + 1
    total = 0.0
    for number, (inputs, outputs) in enumerate(layers):
        rows = point.batch * (point.particles if number >= encoder else 1)
        total += 2.0 * rows * inputs * outputs * (2 if number == 0 else 3)
    return total * max(point.members, 1)


class Subject:
    """The child's end of a point: what is measured."""

    def __init__(self, point: Point) -> None:
        import torch

        from vae_pyro.ranks import ALONE, launch

        self.point = point
        self.ranks, self.device = ALONE, torch.device(point.device)
        if point.processes > 1:
            self.ranks, self.device = launch(point.processes, 1, point.device)
        self.counted, self.summing, self.reading = 0, 0.0, 0.0

    # --- before -------------------------------------------------------------------------------------------------------

    def setup(self) -> dict[str, Any]:
        """Load, build, compile, warm up, and find how many epochs a measurement takes."""
        import torch

        point = self.point
        before = resident()
        began = perf_counter()
        self.split = self._data()
        opened = perf_counter() - began
        opening = self._sum(peak())
        self.svi = self._svi()
        self.steps = len(self.split) // point.batch
        if self.steps == 0:
            raise ValueError(f"{len(self.split)} data are fewer than a batch of {point.batch}")
        self._epochs(1, limit=_WARM_UP_STEPS)
        self._synchronize()
        began = perf_counter()
        taken, _, _ = self._epochs(1, limit=_WARM_UP_STEPS)
        self._synchronize()
        # All processes have to take the same number.
        pace = self._sum(perf_counter() - began) / self.ranks.of / taken
        self.repeats = max(1, round(point.seconds / (pace * min(self.steps, point.limit or self.steps))))
        # Python and the compiler have left their peak behind; what follows is the step's own.
        forget_peak()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return {
            "before_bytes": before,
            "opening_bytes": opening,
            "opening_seconds": opened,
            "data": len(self.split),
            "steps_per_epoch": self.steps,
            "parameters": sum(leaf.numel() for leaf in self.svi.leaves.values()),
            "summed_bytes": self.counted,
            "flops": flops_of_step(point),
            "threads": torch.get_num_threads(),
        }

    def _data(self) -> Any:
        import torch

        from vae_pyro import load_data
        from vae_pyro.data import Split

        point = self.point
        if point.source is not None:
            options: dict[str, Any] = {"binarize": "dynamic", "validation_fraction": 0.0, "test_fraction": _TEST}
            return load_data(point.source, stream=point.stream, **options).train.to(self.device)
        words = np.random.default_rng(_SEED).integers(0, 256, (point.rows, PIXELS), dtype=np.uint8)
        return Split(torch.from_numpy(words).to(self.device), top=255.0, draw="binarize")

    def _svi(self) -> Any:
        import torch

        from vae_pyro import VAE, VAEConfig
        from vae_pyro.elbo import TraceELBO
        from vae_pyro.loop import PerDatum
        from vae_pyro.svi import CompiledSVI

        point = self.point
        config = VAEConfig(
            x_shape=self.split.x_shape,
            latent_dim=point.latent,
            likelihood="bernoulli",
            encoder={"name": "mlp", "hidden": list(_HIDDEN)},
        )
        self.vae = VAE(config, seed=_SEED).to(self.device)
        torch.manual_seed(_SEED + self.ranks.rank)
        adam = torch.optim.Adam(self.vae.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=ADAM_EPS)
        options: dict[str, Any] = {"num_ensemble": point.members, "own_batches": True} if point.members else {}
        svi = CompiledSVI(
            self.vae.model,
            self.vae.guide,
            adam,
            PerDatum(TraceELBO(num_particles=point.particles)),
            prepare=self.split.observe,
            ranks=self.ranks,
            compile=point.compile,
            **options,
        )
        if not self.ranks.alone:
            add = self.ranks.add

            def counting(tensor: Any) -> None:
                self.counted = tensor.numel() * tensor.element_size()
                began = perf_counter()
                add(tensor)
                self.summing += perf_counter() - began

            self.ranks.add = counting  # type: ignore[method-assign]
        return svi

    # --- steps --------------------------------------------------------------------------------------------------------

    @property
    def _stepwise(self) -> bool:
        """Whether batches are handed out one by one, as `vae_pyro.fit` does, and not by `CompiledSVI.run_epoch`."""
        return self.point.source is not None or self.point.members > 0 or self.point.processes > 1

    def _batches(self, seed: int) -> Iterator[Any]:
        """Raw batches of an epoch, without a smaller last one."""
        import torch

        from vae_pyro.data import Part
        from vae_pyro.svi import BitStream

        point, part = self.point, Part(self.ranks.rank, self.ranks.of)
        seeds = [seed * 1000 + member for member in range(max(point.members, 1))]
        parts = [self.split.epoch(point.batch, one, BitStream(one, self.device), part=part) for one in seeds]
        for number, raws in enumerate(zip(*parts, strict=True)):
            if number == self.steps:
                break
            if point.members:
                yield [torch.stack(tensors) for tensors in zip(*raws, strict=True)]
            else:
                yield raws[0]

    def _steps(self, seed: int, limit: int | None, *, only_read: bool = False) -> tuple[int, float, float]:
        """Steps of an epoch, so many at most: their number, seconds until the first batch was there, last loss."""
        taken, first, loss = 0, 0.0, nan
        ahead = self._batches(seed)
        while taken != limit:
            began = perf_counter()
            raw = next(ahead, None)
            waited = perf_counter() - began
            if raw is None:
                break
            first = waited if taken == 0 else first
            self.reading += waited
            taken += 1
            if not only_read:
                self.svi.share = 1.0 / self.ranks.of
                losses = self.svi.step_tensor(*raw)
                loss = float(losses.mean())  # as a fit does at every step
        ahead.close()  # type: ignore[attr-defined]
        return taken, first, loss

    def _epochs(self, count: int, limit: int | None = None) -> tuple[int, float, float]:
        """Steps, mean seconds until the first batch, and the last loss in nats per datum.

        ``limit``, or the point's, is the most of an epoch where batches go one by one.
        """
        self.epoch = getattr(self, "epoch", 0)
        taken, first, loss = 0, 0.0, nan
        for _ in range(count):
            self.epoch += 1
            if self._stepwise:
                some, waited, loss = self._steps(self.epoch, limit or self.point.limit)
                taken, first = taken + some, first + waited / count
            else:
                mean = self.svi.run_epoch(self.split, batch_size=self.point.batch, seed=self.epoch, drop_last=True)
                taken, loss = taken + self.steps, float(mean) * self.point.batch
        return taken, first, loss

    def measure(self) -> dict[str, Any]:
        """Time some epochs, or as much of each as ``limit`` allows."""
        self._meet()
        began = perf_counter()
        taken, first, loss = self._epochs(self.repeats)
        self._meet()
        seconds = perf_counter() - began
        per_epoch = taken / self.repeats
        # An epoch that was cut short is continued at the pace after its first batch.
        pace = (seconds / self.repeats - first) / per_epoch
        return {
            "seconds": seconds,
            "steps": taken,
            "ms_per_step": seconds / taken * 1e3,
            "first_ms": first * 1e3,
            "epoch_seconds": first + pace * self.steps,
            "loss": loss,
            "peak_bytes": self._sum(peak()),
            "private_bytes": self._sum(private()),
            "device_bytes": self._device_memory(),
        }

    def _meet(self) -> None:
        self._synchronize()
        self._sum(0.0)

    def _synchronize(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _sum(self, number: float) -> float:
        """Over the processes."""
        import torch

        from vae_pyro.ranks import Ranks

        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        Ranks.add(self.ranks, total)  # which is not counted as a step's
        return float(total)

    def _device_memory(self) -> float | None:
        import torch

        if self.device.type != "cuda":
            return None
        return self._sum(torch.cuda.max_memory_allocated(self.device))

    # --- what the time goes to ----------------------------------------------------------------------------------------

    def parts(self) -> dict[str, Any]:
        """Milliseconds of a profiled step by what they are spent on, and of a sum over processes by itself."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        from vae_pyro.ranks import Ranks

        epochs = max(1, min(self.repeats, round(_PROFILED_STEPS / self.steps)))
        on_gpu = self.device.type == "cuda"
        self._meet()
        self.summing = self.reading = 0.0
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
            began = perf_counter()
            taken, _, _ = self._epochs(epochs, limit=min(self.point.limit or self.steps, _MOST_PROFILED))
            self._synchronize()
            profiled = (perf_counter() - began) / taken
        spent = _by_kind(found, self.device.type, marked=self.point.compile, alone=self.ranks.alone)
        parts = {name: microseconds / taken / 1e3 for name, microseconds in spent.items()}
        if not on_gpu:  # whose reading and sums go on beside its kernels
            read = taken
            if not self._stepwise:  # `run_epoch` reads the same rows and bits, but does not say for how long
                read, _, _ = self._steps(0, None, only_read=True)
            parts["reading"] = self.reading / read * 1e3
            if not self.ranks.alone:
                parts["sum over processes"] = self.summing / taken * 1e3
        parts["without a kernel" if on_gpu else "calls, noise, Python"] = profiled * 1e3 - sum(parts.values())
        answer: dict[str, Any] = {"parts": parts, "profiled_ms": profiled * 1e3}
        if not self.ranks.alone:
            alone = {}
            for size in (self.counted // 4, 1):
                vector = torch.zeros(size, device=self.device)
                times = []
                for _ in range(30):
                    self._meet()
                    began = perf_counter()
                    Ranks.add(self.ranks, vector)
                    self._synchronize()
                    times.append(perf_counter() - began)
                alone[size] = median(times)
            # A sum of one number is all latency: 2 (p - 1) messages.
            answer |= {"sum_alone_ms": alone[self.counted // 4] * 1e3, "latency": alone[1] / (2 * (self.ranks.of - 1))}
        return answer


def _by_kind(found: Any, device: str, *, marked: bool, alone: bool) -> dict[str, float]:
    """Microseconds of a profile by kind; kernels of a compiled step carry marks, see `benchmarks.anatomy`."""
    events = {event.key: event for event in found.key_averages()}
    if device == "cuda":
        times = {key: float(event.self_device_time_total) for key, event in events.items()}
        words = ("gemm", "cutlass", "xmma", "nvjet", "cublas")
        products = sum(time for key, time in times.items() if any(word in key.lower() for word in words))
        nccl = sum(time for key, time in times.items() if "nccl" in key.lower())
        rest = sum(times.values()) - products - nccl
        return {"products": products, "other kernels": rest} | ({} if alone else {"sum over processes": nccl})
    times = {key: float(event.cpu_time_total) for key, event in events.items()}
    if not marked:
        plain = ("aten::mm", "aten::addmm", "aten::bmm")
        products = sum(times.get(key, 0.0) for key in plain)
        moved = sum(time for key, time in times.items() if key.startswith("Optimizer.step"))
        return {"products": products, "optimizer": moved}
    from benchmarks.anatomy import _PARTS

    names = tuple(name for kind, prefixes in _PARTS.items() if "products" in kind for name in prefixes)
    products = sum(time for key, time in times.items() if key.startswith(names))
    kernels = {key: time for key, time in times.items() if key.startswith("cpp_fused")}
    if not alone:  # gradients and optimizer are two programs, each of which counts its kernels from 0
        return {"products": products, "other kernels": sum(kernels.values())}
    # Kernels are numbered in the order in which a step calls them, and the optimizer's is the last.
    last = max(kernels, key=lambda key: int(key.rsplit("_", 1)[1]), default="")
    moved = kernels.pop(last, 0.0)
    return {"products": products, "optimizer": moved, "other kernels": sum(kernels.values())}


def _status(name: str, file: str = "status") -> int | None:
    """Bytes of a line of ``/proc/self``; ``None`` where there is none."""
    try:
        lines = Path("/proc/self", file).read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * 1024 if found else None


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


def serve(point: Point) -> None:
    """The child's end: answer until the input ends. Of several processes the first one listens and speaks."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if point.compile:
        from torch._inductor import config

        config.cpp.enable_kernel_profile = True
    subject = Subject(point)
    while True:
        command = _next_command(subject)
        if command == "stop":
            return
        try:
            answer = getattr(subject, command)()
        except Exception as error:
            traceback.print_exc()
            if not subject.ranks.first:
                raise
            text = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
        if subject.ranks.first:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _next_command(subject: Subject) -> str:
    import torch

    number = torch.zeros((), dtype=torch.int64, device=subject.device)
    if subject.ranks.first:
        number += _COMMANDS.index(sys.stdin.readline().strip() or "stop")
    subject.ranks.copy_from_first(number)
    return _COMMANDS[int(number)]


# --- the parent's end -------------------------------------------------------------------------------------------------


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
            [sys.executable, "-m", "benchmarks.scale", "--serve", json.dumps(asdict(point))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[1],
            env=environment,
        )


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        device: ``cpu`` or ``cuda``.
        rounds: through all points of an axis.
        seconds: that a measurement takes at least.
        quick: few small points, not compiled: a trial of the program.
        large: streams 1e7 rows as well.
        scratch: folder for the files that are streamed.
        deadline: on `time.monotonic`'s clock; no axis begins after it.
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
        about: what is the same at all points.
        points: to measure, from the plan.
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
    # One process takes its steps in the same way as several: batch by batch, from a loader of its own.
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
    """Write random bytes as a ``.npy`` file of shape ``(rows, 28, 28)``, block by block: all of it is written data.

    Raises:
        ValueError: the disk has no room; the message says how much is wanted.
    """
    wanted, there = rows * PIXELS, shutil.disk_usage(file.parent).free
    if there < wanted * _SPARE_DISK:
        raise ValueError(
            f"{rows:,} rows want {wanted * _SPARE_DISK / 2**30:.1f} GiB under {str(file.parent)!r}, which has "
            f"{there / 2**30:.1f} GiB free; name another folder with --scratch"
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


def measure(name: str, plan: Plan, cache: Path) -> dict[str, Any]:
    """Measure one axis."""
    sweep = SWEEPS[name]
    print(f"\n{sweep.title}: {sweep.about}", flush=True)
    began = monotonic()
    points = sweep.points(plan)
    rows: list[dict[str, Any]] = [{**asdict(point), "from_file": point.source is not None} for point in points]
    processes: list[tuple[Process, dict[str, Any]]] = []
    try:
        if name == "rows" and not plan.quick:
            # All points of this axis run one program: compiled before, it is read by all, and none holds the compiler.
            _ask(Process(points[0], cache), {}, "setup", last=True)
        for point, row in zip(points, rows, strict=True):
            del row["source"]  # a path of this machine
            processes.append((Process(point, cache), row))  # all import at once
        for process, row in processes:
            row.update(_ask(process, row, "setup"))
        _alternate(processes, plan.rounds)
        alive = [pair for pair in processes if "error" not in pair[1]]
        ends = {"processes": len(alive), "rows": 3}.get(name, 1)
        for process, row in [*alive[:ends], *alive[max(ends, len(alive) - ends) :]]:
            row.update(_ask(process, row, "parts"))
    finally:
        for process, _ in processes:
            process.close()
    for row in rows:
        if "error" not in row:
            _summarise(row)
    case = {"title": sweep.title, "unit": sweep.unit, "about": sweep.about, "rounds": plan.rounds, "points": rows}
    return {**case, "laws": laws(name, rows), "seconds": monotonic() - began}


def _alternate(processes: Sequence[tuple[Process, dict[str, Any]]], rounds: int) -> None:
    for number in range(rounds):
        turn = number % max(len(processes), 1)
        for process, row in [*processes[turn:], *processes[:turn]]:
            if "error" not in row:
                answer = _ask(process, row, "measure")
                if "error" not in answer:
                    row.setdefault("measured", []).append(answer)
        steps = ", ".join(f"{row['measured'][-1]['ms_per_step']:.2f}" for _, row in processes if "measured" in row)
        print(f"  round {number + 1} of {rounds}: {steps} ms a step", flush=True)


def _ask(process: Process, row: dict[str, Any], command: str, *, last: bool = False) -> dict[str, Any]:
    """The answer of a point; where there is none, its error, which ends it."""
    try:
        answer = process.ask(command)
    except WorkerError as error:
        answer = {"error": str(error)}
        row["error"] = str(error)
        print(f"  {process.name}: {error}", file=sys.stderr, flush=True)
        last = True
    if last:
        process.close()
    return answer


def _summarise(row: dict[str, Any]) -> None:
    """Medians over rounds."""
    measured = row["measured"]
    for key in ("ms_per_step", "first_ms", "epoch_seconds", "loss"):
        row[key] = median(each[key] for each in measured)
    for key in ("peak_bytes", "private_bytes", "device_bytes"):
        row[key] = None if measured[-1][key] is None else max(each[key] for each in measured)


def laws(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Exponents of time, and bytes for each unit of x, of the rows that were measured."""
    done = [row for row in rows if "error" not in row and "ms_per_step" in row]
    found: dict[str, Any] = {}
    if name == "processes":
        return _efficiency(done)
    kinds = {"in memory": False, "streamed": True} if name == "rows" else {"": None}
    for kind, streamed in kinds.items():
        own = [row for row in done if streamed is None or row["stream"] == streamed]
        ending = f", {kind}" if kind else ""
        if len(own) < 2:
            continue
        x = [row["x"] for row in own]
        time, label = ("epoch_seconds", "seconds of an epoch") if name == "rows" else ("ms_per_step", "time of a step")
        found[f"{label}{ending}, exponent"] = _plain(power_law(x, [row[time] for row in own]))
        found[f"{label}{ending}, exponent of the last two"] = _plain(power_law(x[-2:], [row[time] for row in own[-2:]]))
        memory = {"peak memory": [row["device_bytes"] or row["peak_bytes"] for row in own]}
        if name == "rows":
            memory["peak memory while opening"] = [row["opening_bytes"] for row in own]
        for what, held in memory.items():
            found[f"{what}{ending}, exponent"] = _plain(power_law(x, held))
            full = [pair for pair in zip(x, held, strict=True) if name != "rows" or pair[0] >= _WINDOWS_FULL]
            if len(full) > 1:
                found[f"{what}{ending}, bytes for each"] = _plain(line(*zip(*full, strict=True)))
    if name == "rows":
        pairs = {row["x"]: row for row in done if not row["stream"]}
        found["streamed / in memory"] = {
            str(row["x"]): row["epoch_seconds"] / pairs[row["x"]]["epoch_seconds"]
            for row in done
            if row["stream"] and row["x"] in pairs
        }
    return found


def _plain(slope: Slope) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {**asdict(slope), "se": slope.se if slope.count > 2 else None}


def _efficiency(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    alone = next((row for row in rows if row["processes"] == 1), None)
    if alone is None:
        return {}
    found: dict[str, Any] = {}
    for row in rows:
        if row["processes"] > 1:
            strong = row["batch"] == alone["batch"]
            speed_up = alone["ms_per_step"] / row["ms_per_step"] * row["batch"] / alone["batch"]
            found[row["label"]] = {
                "scaling": "strong" if strong else "weak",
                "speed_up": speed_up,
                "efficiency": speed_up / row["processes"],
                "summed_bytes": row["summed_bytes"],
                "sum_alone_ms": row.get("sum_alone_ms"),
            }
    return found


# --- what is written --------------------------------------------------------------------------------------------------


def paper(sweeps: dict[str, Any], device: str) -> list[dict[str, Any]]:
    """All systems on paper, from what was measured of processes and batches; empty where that was not."""
    rows = [row for row in sweeps.get("processes", {}).get("points", []) if "ms_per_step" in row]
    alone = next((row for row in rows if row["processes"] == 1), None)
    if alone is None:
        return []
    together = [row for row in rows if row["processes"] > 1]
    # Loss, signal and two metrics go with the gradient.
    nbytes = together[0]["summed_bytes"] if together else 4 * (alone["parameters"] + 4)
    latencies = [row["latency"] for row in together if "latency" in row]
    of_batch = [row for row in sweeps.get("batch", {}).get("points", []) if "ms_per_step" in row]
    slope = None
    if len(of_batch) > 1:
        slope = line([row["batch"] for row in of_batch], [row["ms_per_step"] / 1e3 for row in of_batch])
    found = [
        on_paper(
            system,
            nbytes=nbytes,
            step=alone["ms_per_step"] / 1e3,
            batch=alone["batch"],
            flops=alone["flops"],
            measured_latency=min(latencies, default=None),
            batch_line=slope,
            device=device,
        )
        for system in SYSTEMS
    ]
    return [{**one, "summed_bytes": nbytes, "sum_was_counted": bool(together)} for one in found if one is not None]


def table(name: str, case: dict[str, Any]) -> str:
    """An axis as Markdown: its points, where their time goes, its laws."""
    rows = case["points"]
    columns = [case["unit"], "ms / step, median (range)", "data / s", "peak MiB", "private MiB", "loss, nats"]
    if name == "ensemble":
        columns.insert(2, "ms / step and member")
    if name == "rows":
        columns[2:2] = ["s / epoch", "first batch after, ms", "opening, s", "its peak MiB"]
    parts = [
        f"**{case['title']}**: {case['about']}",
        common.markdown_table(columns, [_line(name, row) for row in rows]),
    ]
    cut = [row for row in rows if "steps_per_epoch" in row and _cut(row)]
    if cut:
        parts.append(f"\\* {cut[0]['limit']} steps, continued at their pace after the first batch.")
    split = [row for row in rows if "error" not in row and "parts" in row]
    if split:
        kinds = sorted({kind for row in split for kind in row["parts"]}, key=_KINDS.index)
        lines = [
            [row["label"]]
            + [f"{row['parts'][kind] / row['profiled_ms']:.0%}" if kind in row["parts"] else "" for kind in kinds]
            + [f"{row['flops'] / row['parts']['products'] / 1e6:,.0f}" if row["parts"].get("products") else ""]
            for row in split
        ]
        parts.append(common.markdown_table([case["unit"], *kinds, "GFLOP/s in products"], lines))
    parts.append("\n".join(f"- {text}" for text in law_lines(name, case["laws"])))
    return "\n\n".join(part for part in parts if part)


def _cut(row: dict[str, Any]) -> bool:
    return row["limit"] is not None and row["limit"] < row["steps_per_epoch"]


def _line(name: str, row: dict[str, Any]) -> list[str]:
    extra = {"ensemble": 1, "rows": 4}.get(name, 0)
    if "error" in row or "ms_per_step" not in row:
        return [row["label"], row.get("error", "not measured"), *[""] * (4 + extra)]
    times = common.Spread.of([each["ms_per_step"] for each in row["measured"]])
    members = max(row["members"], 1)
    memory = f"{row['peak_bytes'] / 2**20:,.0f}"
    if row["device_bytes"]:
        memory += f" + {row['device_bytes'] / 2**20:,.0f}"
    cells = [
        row["label"],
        times.text(3 if times.median < 1 else 2),
        f"{row['batch'] * members / row['ms_per_step'] * 1e3:,.0f}",
        memory,
        f"{row['private_bytes'] / 2**20:,.0f}",
        f"{row['loss']:.1f}",
    ]
    if name == "ensemble":
        cells.insert(2, f"{row['ms_per_step'] / members:.3f}")
    if name == "rows":
        cut = "\\*" if _cut(row) else ""
        cells[2:2] = [
            f"{row['epoch_seconds']:.3g}{cut}",
            f"{row['first_ms']:.1f}",
            f"{row['opening_seconds']:.2f}",
            f"{row['opening_bytes'] / 2**20:,.0f}",
        ]
    return cells


def law_lines(name: str, found: dict[str, Any]) -> list[str]:
    """Laws in words."""
    lines = []
    for label, law in found.items():
        if label == "streamed / in memory":
            ratios = ", ".join(f"{ratio:.2f} at {int(size):,}" for size, ratio in law.items())
            lines.append(f"time of a streamed epoch / that in memory: {ratios}")
        elif name == "processes":
            lines.append(
                f"{label}: {law['scaling']} scaling, speed-up {law['speed_up']:.2f}, efficiency "
                f"{law['efficiency']:.0%}; {law['summed_bytes']:,} bytes summed at each step"
                + (f", by itself in {law['sum_alone_ms']:.2f} ms" if law["sum_alone_ms"] else "")
            )
        else:
            digits = 0 if "bytes" in label and abs(law["slope"]) >= 100 else 2
            lines.append(f"{label}: {Slope(**law).text(digits)}")
    return lines


def paper_table(rows: Sequence[dict[str, Any]]) -> str:
    """Systems on paper as Markdown."""
    if not rows:
        return ""
    columns = [
        "system", "processes", "all-reduce, ms", "of it latency", "step alone, ms", "efficiency, batch for each",
        "data / s", "90 % from a step of, ms", "that is from a batch of",
    ]  # fmt: skip
    lines = []
    for row in rows:
        least, most = ("", "") if row["step_measured"] else ("at least ", "at most ")
        enough = row["batch_for_90_percent"]
        lines.append([
            row["system"],
            f"{row['processes']}",
            f"{row['all_reduce_seconds'] * 1e3:.3f}",
            f"{row['of_it_latency']:.0%}",
            f"{least}{row['step_seconds'] * 1e3:.3f}",
            f"{least}{row['weak_efficiency']:.1%}",
            f"{most}{row['data_per_second']:,.0f}",
            f"{row['shortest_step_for_90_percent'] * 1e3:.2f}",
            "" if enough is None else f"{most}{enough:,.0f}",
        ])  # fmt: skip
    sources = "\n".join(
        f"- {row['system']}: {row['assumed']['bandwidth'] / 1e9:g} GB/s in one direction, "
        f"{row['assumed']['mean_latency'] * 1e6:.1f} us for a message ({row['assumed']['sources']})"
        for row in rows
    )
    counted = "as counted" if rows[0]["sum_was_counted"] else "by the number of parameters"
    return (
        f"**On paper, not measured**: {rows[0]['summed_bytes']:,} bytes summed at a step ({counted}), batch "
        f"{rows[0]['batch_per_process']} for each process, ring all-reduce 2 (p - 1) / p bytes / bandwidth + 2 (p - 1) "
        "latency, which does not overlap the step. A GPU's step is taken as its products at the data sheet's rate "
        "where none was measured, which is less than it.\n\n"
        f"{common.markdown_table(columns, lines)}\n\nAssumed:\n\n{sources}"
    )


def report(result: dict[str, Any]) -> str:
    """All axes of a result, and what follows from them on paper, with the machines."""
    cases = result["sweeps"]
    parts = [table(name, cases[name]) for name in SWEEPS if name in cases]
    parts.append(paper_table(result["on_paper"]))
    lines = {
        f"Machine: {common.machine_line(case['machine'])}; vae_pyro at {case['revision'] or 'no revision'}; "
        f"{', '.join(other for other, its in cases.items() if its['machine'] == case['machine'])}."
        for case in cases.values()
    }
    return "\n\n".join(part for part in [*parts, *sorted(lines)] if part)


def merged(old: dict[str, Any] | None, name: str, case: dict[str, Any], device: str) -> dict[str, Any]:
    """A result with this axis new, the others as they were."""
    sweeps = {**(old or {"sweeps": {}})["sweeps"], name: case}
    ordered = {one: sweeps[one] for one in SWEEPS if one in sweeps}
    return {"benchmark": "scale", "device": device, "sweeps": ordered, "on_paper": paper(ordered, device)}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(SWEEPS), choices=SWEEPS, metavar="AXIS",
                        help=", ".join(SWEEPS))  # fmt: skip
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3, help="through all points of an axis; medians are reported")
    parser.add_argument("--seconds", type=float, default=0.6, help="that a measurement takes at least")
    parser.add_argument("--quick", action="store_true", help="a trial: few small points, not compiled, one round; "
                        "written only to another --out")  # fmt: skip
    parser.add_argument("--large", action="store_true", help="stream 1e7 rows as well: 7.8 GB are written")
    parser.add_argument("--scratch", type=Path, help="folder on a disk for the files that are streamed")
    parser.add_argument("--seconds-limit", type=float, default=float("inf"), help="begin no axis after so long")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write."""
    given = arguments()
    if given.serve is not None:
        serve(Point(**json.loads(given.serve)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # files of gigabytes are not left behind
    began = monotonic()
    name = f"scale-{given.device}"
    keeps = not given.quick or given.out != common.HERE
    readme = given.out / "README.md"
    if keeps and readme.exists() and f"<!-- {name}: begin -->" not in readme.read_text():
        raise SystemExit(
            f"error: {str(readme)!r} has no block {name!r} to write to; add its two markers, or name an --out"
        )
    described, file = common.machine(given.device), given.out / "results" / f"{name}.json"
    result: dict[str, Any] = {"sweeps": {}, "on_paper": []}
    with tempfile.TemporaryDirectory(prefix="vae_pyro-scale-", dir=given.scratch) as scratch:
        rounds, seconds = (1, 0.02) if given.quick else (given.rounds, given.seconds)
        deadline = began + given.seconds_limit
        plan = Plan(given.device, rounds, seconds, given.quick, given.large, Path(scratch), deadline)
        for axis in sorted(given.only, key=list(SWEEPS).index):
            if monotonic() > plan.deadline:
                print(f"the time is up: {axis} was not measured", flush=True)
                continue
            try:
                case = measure(axis, plan, Path(scratch) / f"inductor-{axis}")
            except ValueError as error:
                raise SystemExit(f"error: {error}") from None
            case |= {"machine": described, "revision": common.revision()}
            print(f"\n{table(axis, case)}", flush=True)
            # After each axis, so that an interrupted run keeps what it has.
            result = merged(common.read_json(file) if keeps else result, axis, case, given.device)
            if keeps:
                common.write_json(file, result)
                common.replace_block(readme, name, report(result))
    if result["on_paper"]:
        print(f"\n{paper_table(result['on_paper'])}")
    print(f"\n{common.duration(monotonic() - began)}{'' if keeps else '; a trial: nothing was written'}")


if __name__ == "__main__":
    main()
