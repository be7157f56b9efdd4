"""The floor of a training epoch: the time of its matrix products alone, at the best rate of this machine.

Noise, activations, densities, the optimizer and the reading of data come on top.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

from benchmarks.speed.task import Task

_BURST_SECONDS, _BURSTS = 0.05, 5
_CUDA_BURST = 200


def floor(task: Task) -> dict[str, Any]:
    """Measure every product of a step: forward, gradient of the weights, gradient of the inputs where it is needed.

    The inputs of the first layer are data and need no gradient. Each product is computed by ``torch.mm`` and, on a CPU,
    by oneDNN's linear layer; the faster one counts.

    Returns:
        ``seconds`` of an epoch, ``gigaflops`` counted in it, ``rate`` in GFLOP/s, and ``rate_mm``, that of ``torch.mm``
        alone.
    """
    device = torch.device(task.device)
    operations, best, plain = 0.0, 0.0, 0.0
    for number, (inputs, outputs) in enumerate(task.network.layers):
        x = torch.rand(task.batch, inputs, device=device)
        weight = torch.rand(outputs, inputs, device=device)
        gradient = torch.rand(task.batch, outputs, device=device)
        products = [(x, weight.t()), (gradient.t(), x)]
        if number > 0:
            products.append((gradient, weight))
        for a, b in products:
            by_mm = _seconds(lambda a=a, b=b: torch.mm(a, b), device)  # type: ignore[misc]
            by_onednn = _onednn_seconds(a, b, device)
            operations += 2 * a.shape[0] * a.shape[1] * b.shape[1]
            plain += by_mm
            best += by_mm if by_onednn is None else min(by_mm, by_onednn)
    return {
        "seconds": best * task.steps,
        "gigaflops": operations * task.steps / 1e9,
        "rate": operations / best / 1e9,
        "rate_mm": operations / plain / 1e9,
    }


def _onednn_seconds(a: torch.Tensor, b: torch.Tensor, device: torch.device) -> float | None:
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    try:
        linear = torch.ops.mkldnn._linear_pointwise
        return _seconds(lambda: linear(a, b.t(), None, "none", [], ""), device)
    except (AttributeError, RuntimeError):  # a build without it
        return None


def _seconds(product: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call: the best burst, since the floor is that of an undisturbed machine."""
    if device.type == "cuda":
        return _seconds_cuda(product, device)

    def burst(count: int) -> float:
        began = perf_counter()
        for _ in range(count):
            product()
        return (perf_counter() - began) / count

    burst(3)
    count = max(3, int(_BURST_SECONDS / max(burst(10), 1e-7)))
    return min(burst(count) for _ in range(_BURSTS))


def _seconds_cuda(product: Callable[[], Any], device: torch.device) -> float:
    # In a CUDA graph, since launches from Python cost more than small products.
    product()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_CUDA_BURST):
            product()
    graph.replay()
    times = []
    for _ in range(_BURSTS):
        torch.cuda.synchronize(device)
        began = perf_counter()
        graph.replay()
        torch.cuda.synchronize(device)
        times.append((perf_counter() - began) / _CUDA_BURST)
    return min(times)
