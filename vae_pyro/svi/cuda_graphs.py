"""Many whole steps at once: one CUDA graph on a GPU, elsewhere one after another with nothing looked up in between."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vae_pyro.svi.forms import WholeForm
from vae_pyro.svi.program import Metrics

type Words = Callable[[int], Tensor]


class Replay:
    """So many steps of one program over resident data, launched at once.

    The time of a step of a small network on a GPU is spent on launches, not on arithmetic; a graph of K steps has one.
    The order of the data and the optimizer's rates are read from tensors that `run` fills; noise comes from torch's
    generator of the device, which a graph advances when it is replayed.

    Args:
        form: the step; it has run before, so that nothing is left to be compiled.
        raw: rows as they are stored for an index and a source of random words, what the program's batch is made of
            (`vae_pyro.svi.epochs.Rows.raw`).
        batch_size: data in a step.
        steps: K.
        device: of the data.

    Attributes:
        metrics: of the last step.
    """

    def __init__(
        self,
        form: WholeForm,
        raw: Callable[[Tensor, Words], tuple[Any, ...]],
        batch_size: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self.form, self.raw, self.steps = form, raw, steps
        self.index = torch.zeros(steps, batch_size, dtype=torch.int64, device=device)
        self.rates = torch.zeros_like(form.next_rates(steps))
        self.losses = torch.zeros(steps, dtype=self.rates.dtype, device=device)
        self.metrics: Metrics = {}
        self._graph: torch.cuda.CUDAGraph | None = None

    def take_steps(self, words: Words) -> None:
        """The steps one after another; what a graph records."""
        program = self.form.program
        for index, rates, total in zip(self.index, self.rates, self.losses, strict=True):
            tensors = program.tensors(self.raw(index, words), {})
            loss, self.metrics = self.form.take_at(rates, tensors, program.draw())
            total.copy_(loss)

    def run(self, index: Tensor, words: Words) -> Tensor:
        """Take the steps.

        Args:
            index: rows of each step, ``(steps, batch_size)``.
            words: of observations that are random, see `vae_pyro.core.minibatches.BitStream`; a graph keeps those it
                was recorded with, which have to come from the device's generator.

        Returns:
            Losses, shape ``(steps,)``; overwritten by the next call.
        """
        self.index.copy_(index)
        self.rates.copy_(self.form.next_rates(self.steps))
        self.form.state.count_up(self.steps)
        if self.index.device.type != "cuda":
            self.take_steps(words)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):  # records, and changes nothing
                    self.take_steps(words)
            self._graph.replay()
        return self.losses
