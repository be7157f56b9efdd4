"""The child's end of a point: loads, builds, steps, times and profiles, each when it is told to over a pipe.

`benchmarks.point.Process` starts it, as ``python -m benchmarks.point_worker`` with its point as JSON.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from math import nan
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.kernels import by_kind
from benchmarks.memory import forget_peak, peak, private, resident
from benchmarks.point import HIDDEN, Point, flops_of_step
from benchmarks.work import ADAM_EPS, BETAS, LEARNING_RATE, PIXELS

_SEED = 0
_COMMANDS = ("setup", "measure", "parts", "stop")
_PROFILED_STEPS, _WARM_UP_STEPS = 100, 20
# Of long epochs so many are profiled: at batch 128, a window of a stream and what comes after it.
_MOST_PROFILED = 350
# Of the rows of a file, this share is left out of training; `load_data` wants some.
_TEST = 0.05


class Subject:
    """The child's end of a point: what is measured."""

    def __init__(self, point: Point) -> None:
        import torch

        from vae_pyro.parallel.ranks import ALONE, launch

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
        from vae_pyro.data.split import Split

        point = self.point
        if point.source is not None:
            options: dict[str, Any] = {"binarize": "dynamic", "validation_fraction": 0.0, "test_fraction": _TEST}
            return load_data(point.source, stream=point.stream, **options).train.to(self.device)
        words = np.random.default_rng(_SEED).integers(0, 256, (point.rows, PIXELS), dtype=np.uint8)
        return Split(torch.from_numpy(words).to(self.device), top=255.0, draw="binarize")

    def _svi(self) -> Any:
        import torch

        from vae_pyro import VAE, VAEConfig
        from vae_pyro.objectives.elbo import TraceELBO
        from vae_pyro.svi.compiled_svi import CompiledSVI
        from vae_pyro.training.per_datum import PerDatum

        point = self.point
        config = VAEConfig(
            x_shape=self.split.x_shape,
            latent_dim=point.latent,
            likelihood="bernoulli",
            encoder={"name": "mlp", "hidden": list(HIDDEN)},
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

        from vae_pyro.core.minibatches import BitStream
        from vae_pyro.data.split import Part

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
                losses = self.svi.take_step(raw, share=1.0 / self.ranks.of)
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

        from vae_pyro.parallel.ranks import Ranks

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

        from vae_pyro.parallel.ranks import Ranks

        epochs = max(1, min(self.repeats, round(_PROFILED_STEPS / self.steps)))
        on_gpu = self.device.type == "cuda"
        self._meet()
        self.summing = self.reading = 0.0
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
            began = perf_counter()
            taken, _, _ = self._epochs(epochs, limit=min(self.point.limit or self.steps, _MOST_PROFILED))
            self._synchronize()
            profiled = (perf_counter() - began) / taken
        spent = by_kind(found, self.device.type, marked=self.point.compile, alone=self.ranks.alone)
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


if __name__ == "__main__":
    serve(Point(**json.loads(sys.argv[1])))
