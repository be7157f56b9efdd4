"""Performance of a step on other machines, computed from measured parts and from data sheets."""

from dataclasses import asdict, dataclass
from math import nan
from typing import Any

from benchmarks.scale.laws import Slope, line


def ring_all_reduce(processes: int, nbytes: float, bandwidth: float, latency: float) -> float:
    """Duration in seconds of a sum over a ring of processes: ``2 (p - 1) / p * bytes / bandwidth + 2 (p - 1) latency``.

    Each process sends and receives ``(p - 1) / p`` of the vector twice, to scatter sums and to gather them, in
    ``2 (p - 1)`` messages. Additions are neglected.

    Args:
        processes: p, at least 1.
        nbytes: size of the vector.
        bandwidth: bytes per second that a process sends while it receives as many.
        latency: duration of an empty message in seconds.

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
            "processes must be at least 1, nbytes and latency at least 0 and bandwidth above 0, got "
            f"{processes}, {nbytes}, {latency}, {bandwidth}"
        )
    return 2 * (processes - 1) / processes * nbytes / bandwidth + 2 * (processes - 1) * latency


@dataclass(frozen=True)
class System:
    """An assumed machine.

    Attributes:
        name: description.
        nodes: number of machines.
        per_node: processes on each.
        bandwidth: bytes per second in one direction, of the slowest link of the ring.
        latency: duration of a message within a node in seconds.
        latency_between: duration of a message between nodes in seconds; ``None`` uses the measured latency.
        rate: floating-point operations per second of a process; ``None`` uses the measured step.
        sources: of the numbers.
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
        """Number of all processes."""
        return self.nodes * self.per_node


_H100 = "NVIDIA H100 data sheet (SXM: 67 TFLOP/s in float32, NVLink 900 GB/s and PCIe Gen5 128 GB/s, both directions)"
_NCCL = "latency of a ring's message from NCCL's own model (src/graph/tuning.cc, hwLat, Simple)"
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


def extrapolate(
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
    """Performance of a step on a system, computed from measured parts.

    A process sums its gradient after it is complete, so that nothing overlaps: the duration of a step is that of one
    process plus that of the sum. The step of a GPU is unknown where a CPU was measured; its products at the rate of the
    data sheet are a lower bound of it, so that, given the time of the sum, the efficiency is a lower bound as well.

    Args:
        system: the assumed system.
        nbytes: measured number of bytes that a step sums.
        step: measured duration of a step of one process in seconds.
        batch: data in that step.
        flops: floating-point operations of its products.
        measured_latency: duration of a message between processes of one machine in seconds; ``None`` if not measured.
        batch_line: measured duration of a step against its batch; ``None`` if not measured.
        device: on which ``step`` was measured.

    Returns:
        ``None`` where a required part was not measured.
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


def extrapolated(sweeps: dict[str, Any], device: str) -> list[dict[str, Any]]:
    """All assumed systems, from the measured axes of processes and batches; empty without the former."""
    rows = [row for row in sweeps.get("processes", {}).get("points", []) if "ms_per_step" in row]
    alone = next((row for row in rows if row["processes"] == 1), None)
    if alone is None:
        return []
    together = [row for row in rows if row["processes"] > 1]
    # Loss, signal and two metrics are summed with the gradient.
    nbytes = together[0]["summed_bytes"] if together else 4 * (alone["parameters"] + 4)
    latencies = [row["latency"] for row in together if "latency" in row]
    of_batch = [row for row in sweeps.get("batch", {}).get("points", []) if "ms_per_step" in row]
    slope = None
    if len(of_batch) > 1:
        slope = line([row["batch"] for row in of_batch], [row["ms_per_step"] / 1e3 for row in of_batch])
    found = [
        extrapolate(
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
