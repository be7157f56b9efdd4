"""Time of a profiled step by kind of work, from the names of its kernels."""

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.speed.anatomy import PARTS

if TYPE_CHECKING:
    from benchmarks.scale.point_worker import Subject

_PROFILED_STEPS = 100
# Most steps of a long epoch that are profiled: at batch 128, a window of a stream and the first steps after it.
_MAX_PROFILED = 350

# In the order of a table; time outside kernels is added by the caller.
KINDS = ("products", "optimizer", "other kernels", "reading", "sum over processes", "calls, noise, Python",
         "without a kernel")  # fmt: skip


def by_kind(found: Any, device: str, *, marked: bool, alone: bool) -> dict[str, float]:
    """Microseconds of a profile by kind; kernels of a compiled step are marked, see `benchmarks.speed.anatomy`."""
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
    names = tuple(name for kind, prefixes in PARTS.items() if "products" in kind for name in prefixes)
    products = sum(time for key, time in times.items() if key.startswith(names))
    kernels = {key: time for key, time in times.items() if key.startswith("cpp_fused")}
    if not alone:  # gradients and optimizer are two programs, each of which counts its kernels from 0
        return {"products": products, "other kernels": sum(kernels.values())}
    # Kernels are numbered in call order, and the optimizer's is the last.
    last = max(kernels, key=lambda key: int(key.rsplit("_", 1)[1]), default="")
    moved = kernels.pop(last, 0.0)
    return {"products": products, "optimizer": moved, "other kernels": sum(kernels.values())}


def time_by_kind(subject: "Subject") -> dict[str, Any]:
    """Milliseconds of a profiled step by kind of work, and of a sum over processes alone."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from vae_pyro.parallel.ranks import Ranks

    epochs = max(1, min(subject.repeats, round(_PROFILED_STEPS / subject.steps)))
    on_gpu = subject.device.type == "cuda"
    subject.meet()
    subject.summing = subject.reading = 0.0
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        began = perf_counter()
        taken, _, _ = subject.take_epochs(epochs, limit=min(subject.point.limit or subject.steps, _MAX_PROFILED))
        subject.synchronize()
        profiled = (perf_counter() - began) / taken
    spent = by_kind(found, subject.device.type, marked=subject.point.compile, alone=subject.ranks.alone)
    parts = {name: microseconds / taken / 1e3 for name, microseconds in spent.items()}
    if not on_gpu:  # where reading and sums overlap its kernels
        read = taken
        if not subject.stepwise:  # `run_epoch` reads the same rows and bits, but does not report the time
            read, _, _ = subject.take_steps(0, None, only_read=True)
        parts["reading"] = subject.reading / read * 1e3
        if not subject.ranks.alone:
            parts["sum over processes"] = subject.summing / taken * 1e3
    parts["without a kernel" if on_gpu else "calls, noise, Python"] = profiled * 1e3 - sum(parts.values())
    answer: dict[str, Any] = {"parts": parts, "profiled_ms": profiled * 1e3}
    if not subject.ranks.alone:
        alone = {}
        for size in (subject.counted // 4, 1):
            vector = torch.zeros(size, device=subject.device)
            times = []
            for _ in range(30):
                subject.meet()
                began = perf_counter()
                Ranks.add(subject.ranks, vector)
                subject.synchronize()
                times.append(perf_counter() - began)
            alone[size] = median(times)
        # A sum of one number is pure latency: 2 (p - 1) messages.
        answer |= {
            "sum_alone_ms": alone[subject.counted // 4] * 1e3,
            "latency": alone[1] / (2 * (subject.ranks.of - 1)),
        }
    return answer
