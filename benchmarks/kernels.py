"""What a profiled step is spent on, by the names of its kernels."""

from typing import Any

from benchmarks.anatomy import PARTS

# In this order they stand in a table; what no kernel shows is the caller's.
KINDS = ("products", "optimizer", "other kernels", "reading", "sum over processes", "calls, noise, Python",
         "without a kernel")  # fmt: skip


def by_kind(found: Any, device: str, *, marked: bool, alone: bool) -> dict[str, float]:
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
    names = tuple(name for kind, prefixes in PARTS.items() if "products" in kind for name in prefixes)
    products = sum(time for key, time in times.items() if key.startswith(names))
    kernels = {key: time for key, time in times.items() if key.startswith("cpp_fused")}
    if not alone:  # gradients and optimizer are two programs, each of which counts its kernels from 0
        return {"products": products, "other kernels": sum(kernels.values())}
    # Kernels are numbered in the order in which a step calls them, and the optimizer's is the last.
    last = max(kernels, key=lambda key: int(key.rsplit("_", 1)[1]), default="")
    moved = kernels.pop(last, 0.0)
    return {"products": products, "optimizer": moved, "other kernels": sum(kernels.values())}
