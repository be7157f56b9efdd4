"""``python -m benchmarks.speed.anatomy``: where the time of one compiled step goes, kernel by kernel, on a CPU.

Shows where a step could become faster: in its products, if they are above the floor that `benchmarks.speed.floor`
measures; in the optimizer, which reads and writes every parameter three times; or in calls.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from time import perf_counter

from benchmarks.common import markdown_table
from benchmarks.speed.contenders.compiled_svi import Compiled
from benchmarks.speed.task import NETS, Task

_STEPS = 400
PARTS = {
    "large products (oneDNN)": ("aoti_torch_cpu__linear_pointwise",),
    "other products (torch.mm)": ("aoti_torch_cpu_mm_out", "aoti_torch_cpu_addmm_out", "aoti_torch_cpu_bmm_out"),
    "generated kernels: optimizer": (),  # the longest of the generated ones
    "generated kernels: noise, activations, densities": ("cpp_fused",),
}


def anatomy(task: Task) -> tuple[float, dict[str, float]]:
    """Microseconds of a step without the profiler, and of its parts with it."""
    from torch._inductor import config
    from torch.profiler import ProfilerActivity, profile

    contender = Compiled()
    with tempfile.TemporaryDirectory(prefix="vae_pyro-benchmark-") as scratch:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch  # cached kernels may be unmarked
        with config.patch({"cpp.enable_kernel_profile": True}):
            contender.setup(task)
        contender.epoch()
        began = perf_counter()
        contender.epoch()
        whole = (perf_counter() - began) / task.steps
        with profile(activities=[ProfilerActivity.CPU]) as measured:
            contender.run(_STEPS * task.batch, 1)
    found: dict[str, float] = defaultdict(float)
    for event in measured.key_averages():
        found[event.key] = event.cpu_time_total / _STEPS
    generated = {key: value for key, value in found.items() if key.startswith("cpp_fused")}
    optimizer = max(generated.values(), default=0.0)
    parts = {
        part: sum(value for key, value in found.items() if key.startswith(names)) if names else optimizer
        for part, names in PARTS.items()
    }
    parts["generated kernels: noise, activations, densities"] -= optimizer
    parts["calls, random numbers, rows, Python"] = whole * 1e6 - sum(parts.values())
    return whole * 1e6, parts


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.anatomy", description=__doc__)
    parser.add_argument("--net", choices=list(NETS), default="mlp-400-20")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--data-root", default=None)
    given = parser.parse_args()
    from vae_pyro.data.datasets import data_root

    task = Task(given.net, given.batch, "cpu", 0, str(data_root(given.data_root)))
    whole, parts = anatomy(task)
    rows = [[part, f"{value:.0f}", f"{value / whole:.0%}"] for part, value in parts.items()]
    rows.append(["a step", f"{whole:.0f}", "100%"])
    print(markdown_table(["part", "microseconds", "share"], rows))


if __name__ == "__main__":
    main()
