"""The child's end of a point: loads, builds, steps, times and profiles on commands over a pipe.

`benchmarks.scale.point.PointProcess` starts it as ``python -m benchmarks.scale.point_worker`` with its point as JSON.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from math import nan
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.memory import peak, private, reset_peak, resident
from benchmarks.scale.point import HIDDEN, Point, flops_of_step
from benchmarks.scale.profiling import time_by_kind
from benchmarks.speed.task import ADAM_EPS, BETAS, LEARNING_RATE, PIXELS

_SEED = 0
_COMMANDS = ("setup", "measure", "parts", "stop")
_WARM_UP_STEPS = 20
# Share of the rows of a file that is left out of training; `load_data` requires some.
_TEST_FRACTION = 0.05


class Subject:
    """A training step of a point, with its data."""

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
        """Load, build, compile, warm up, and determine the number of epochs of a measurement."""
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
        self.take_epochs(1, limit=_WARM_UP_STEPS)
        self.synchronize()
        began = perf_counter()
        taken, _, _ = self.take_epochs(1, limit=_WARM_UP_STEPS)
        self.synchronize()
        # All processes must take the same number.
        pace = self._sum(perf_counter() - began) / self.ranks.of / taken
        self.repeats = max(1, round(point.seconds / (pace * min(self.steps, point.limit or self.steps))))
        # Exclude the peak of Python's imports and the compiler.
        reset_peak()
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
            options: dict[str, Any] = {
                "binarize": "dynamic",
                "validation_fraction": 0.0,
                "test_fraction": _TEST_FRACTION,
            }
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
    def stepwise(self) -> bool:
        """Whether steps are taken batch by batch, as in `vae_pyro.fit`, and not by `CompiledSVI.run_epoch`."""
        return self.point.source is not None or self.point.members > 0 or self.point.processes > 1

    def _batches(self, seed: int) -> Iterator[Any]:
        """Raw batches of an epoch, without a smaller last batch."""
        import torch

        from vae_pyro.core.minibatches import BitStream, Part

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

    def take_steps(self, seed: int, limit: int | None, *, only_read: bool = False) -> tuple[int, float, float]:
        """At most ``limit`` steps of an epoch: their number, seconds until the first batch, last loss."""
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
                loss = float(losses.mean())  # as in a fit, at every step
        ahead.close()  # type: ignore[attr-defined]
        return taken, first, loss

    def take_epochs(self, count: int, limit: int | None = None) -> tuple[int, float, float]:
        """Steps, mean seconds until the first batch, and the last loss in nats per datum.

        ``limit``, by default that of the point, bounds an epoch that is taken batch by batch.
        """
        self.epoch = getattr(self, "epoch", 0)
        taken, first, loss = 0, 0.0, nan
        for _ in range(count):
            self.epoch += 1
            if self.stepwise:
                some, waited, loss = self.take_steps(self.epoch, limit or self.point.limit)
                taken, first = taken + some, first + waited / count
            else:
                mean = self.svi.run_epoch(self.split, batch_size=self.point.batch, seed=self.epoch, drop_last=True)
                taken, loss = taken + self.steps, float(mean) * self.point.batch
        return taken, first, loss

    def measure(self) -> dict[str, Any]:
        """Time some epochs, each at most up to ``limit``."""
        self.meet()
        began = perf_counter()
        taken, first, loss = self.take_epochs(self.repeats)
        self.meet()
        seconds = perf_counter() - began
        per_epoch = taken / self.repeats
        # An epoch that was cut short is extrapolated at the pace after its first batch.
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

    def meet(self) -> None:
        """Wait for the device and for all processes."""
        self.synchronize()
        self._sum(0.0)

    def synchronize(self) -> None:
        """Wait for the device."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _sum(self, number: float) -> float:
        """Sum over the processes."""
        import torch

        from vae_pyro.parallel.ranks import Ranks

        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        Ranks.add(self.ranks, total)  # not counted as part of a step
        return float(total)

    def _device_memory(self) -> float | None:
        import torch

        if self.device.type != "cuda":
            return None
        return self._sum(torch.cuda.max_memory_allocated(self.device))

    def parts(self) -> dict[str, Any]:
        """Milliseconds of a profiled step by kind of work, see `benchmarks.scale.profiling`."""
        return time_by_kind(self)


def serve(point: Point) -> None:
    """Answer commands until the input ends; of several processes, the first reads and writes."""
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
