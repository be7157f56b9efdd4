"""A contender in a process of its own, since the thread pools of XLA and torch must not share one."""

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.memory import lifetime_peak
from benchmarks.process import MeasuringProcess, scratch_folder
from benchmarks.speed.task import Task


class Worker(MeasuringProcess):
    """The parent's end: a contender that can be set up, run and closed.

    Args:
        name: in `benchmarks.speed.contenders.CONTENDERS`, or ``floor``.
        task: the work.
    """

    def __init__(self, name: str, task: Task) -> None:
        scratch = scratch_folder()
        environment = {
            **os.environ,
            # Compilers start with an empty cache, so that their time is that of a first use.
            "TORCHINDUCTOR_CACHE_DIR": str(Path(scratch.name) / "inductor"),
            "VAE_PYRO_CACHE": str(Path(scratch.name) / "programs"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        if task.device == "cpu":
            environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        super().__init__(name, ["benchmarks.speed.worker", name, json.dumps(asdict(task))], environment, scratch)


def serve(name: str, task: Task) -> None:
    """The child's end: answer ``setup`` and ``epoch`` until the input ends."""
    # Output of libraries must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(payload: dict[str, Any]) -> None:
        answers.write(json.dumps(payload) + "\n")
        answers.flush()

    served = _Floor(task) if name == "floor" else _Served(name, task)
    for line in sys.stdin:
        try:
            answer(getattr(served, line.strip())())
        except Exception as error:  # the other contenders continue in any case
            from benchmarks.speed.contenders.base import NotInstalledError

            traceback.print_exc()
            absent = isinstance(error, NotInstalledError)
            text = str(error).strip().splitlines()
            answer({"error": f"{'not installed' if absent else type(error).__name__}: {text[0] if text else ''}"})


class _Served:
    def __init__(self, name: str, task: Task) -> None:
        from benchmarks.speed.contenders import CONTENDERS

        self.contender, self.task = CONTENDERS[name](), task

    def setup(self) -> dict[str, Any]:
        began = perf_counter()
        first_step = self.contender.setup(self.task)
        return {"setup": perf_counter() - began, "first_step": first_step, "threads": self._threads()}

    def epoch(self) -> dict[str, Any]:
        self.contender.synchronize()
        began = perf_counter()
        loss = self.contender.epoch()
        self.contender.synchronize()
        seconds = perf_counter() - began
        return {
            "seconds": seconds,
            "loss": loss,
            "peak_memory": lifetime_peak(),
            "device_memory": self.contender.device_memory(),
        }

    def _threads(self) -> int | None:
        if not self.contender.loads_torch:
            return None
        import torch

        return torch.get_num_threads()


class _Floor:
    def __init__(self, task: Task) -> None:
        self.task = task

    def epoch(self) -> dict[str, Any]:
        from benchmarks.speed.floor import floor

        return floor(self.task)


if __name__ == "__main__":
    serve(sys.argv[1], Task(**json.loads(sys.argv[2])))
