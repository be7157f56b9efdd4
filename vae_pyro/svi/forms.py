"""The forms that a step with a program can have: gradient, whole, and split between processes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from vae_pyro.compilation.inductor import compile_checked, rounding_of
from vae_pyro.compilation.source import Source
from vae_pyro.svi.optimizer_rules import LINEAR_STATES
from vae_pyro.svi.optimizer_state import OptimizerState, Slot
from vae_pyro.svi.parity import reference_step
from vae_pyro.svi.program import Metrics, Program, Run
from vae_pyro.svi.reducer import Reducer
from vae_pyro.svi.step_graphs import metrics_of, move_source, step_source
from vae_pyro.svi.stock import StockOptimizer


class Form(Protocol):
    """How a step is taken with a program. Forms are replaced by others, and do not change."""

    @property
    def program(self) -> Program:
        """What gives loss and gradient."""

    @property
    def stale(self) -> bool:
        """Whether something has changed that the form has baked in, so that its program has to be traced again."""

    @property
    def source(self) -> Source:
        """The graph that is compiled; of two, the optimizer's."""

    def take(self, tensors: Sequence[Tensor], noise: Sequence[Tensor], share: float) -> tuple[Tensor, Metrics]:
        """Step, and give the loss before it, and its metrics."""

    def compiled(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> Self:
        """The same form, compiled for arguments of this shape.

        Raises:
            CompileError: the compiler failed, or its result disagrees with the graph.
        """


@dataclass(frozen=True)
class GradientForm:
    """Loss and gradient from the program; the optimizer takes its own step."""

    program: Program
    optimizer: StockOptimizer
    reducer: Reducer
    stale = False

    @property
    def source(self) -> Source:
        return self.program.source

    def take(self, tensors: Sequence[Tensor], noise: Sequence[Tensor], share: float) -> tuple[Tensor, Metrics]:
        program = self.program
        loss, metrics, gradients = program.gradients(tensors, noise)
        if not self.reducer.alone:
            named = dict(zip(program.used_names, gradients, strict=True))
            loss, metrics, gradients = self.reducer.sum(loss, metrics, named, share)
        return loss, metrics | self.optimizer.step_on(program.used, gradients, loss)

    def compiled(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> Self:
        return replace(self, program=self.program.compiled(tensors, noise))


@dataclass(frozen=True)
class WholeForm:
    """Loss, gradient and optimizer in one graph, which writes parameters and the optimizer's state in place.

    Attributes:
        state: of the optimizer.
        clip_norm: see `vae_pyro.svi.compiled_svi.CompiledSVI`.
        source: of the graph, see `vae_pyro.svi.step_graphs.step_graph`.
        run: the graph, interpreted or compiled.
    """

    program: Program
    state: OptimizerState
    clip_norm: float | None
    source: Source
    run: Run
    names: Sequence[str]

    @classmethod
    def of(cls, program: Program, slots: list[Slot], clip_norm: float | None) -> Self:
        """Put the optimizer of the leaves that are used into a program."""
        source = step_source(program.graph, slots, clip_norm, program.members, program.own)
        names = metrics_of(program.graph, clip_norm)
        return cls(program, OptimizerState(slots), clip_norm, source, source.interpreted, names)

    @property
    def stale(self) -> bool:
        return self.state.stale

    def take(self, tensors: Sequence[Tensor], noise: Sequence[Tensor], share: float = 1.0) -> tuple[Tensor, Metrics]:
        """See `Form`; one process takes it, whose share is the whole."""
        rates = self.next_rates()[0]
        self.state.count_up()
        return self.take_at(rates, tensors, noise)

    def next_rates(self, steps: int = 1) -> Tensor:
        """The optimizer's numbers in each of the next steps, ``(steps, numbers)``."""
        return self.state.next_rates(self.program.leaves[0], steps)

    def take_at(self, rates: Tensor, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> tuple[Tensor, Metrics]:
        """As `take`, with the optimizer's numbers given and no step counted."""
        program = self.program
        with torch.no_grad():
            outputs = self.run([*program.leaves, *self.state.tensors(), rates, *tensors, *program.constants, *noise])
        return outputs[0], dict(zip(self.names, outputs[1:], strict=True))

    def compiled(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> Self:
        program, slots = self.program, self.state.slots
        reference = reference_step(program.graph, slots, self.clip_norm) if program.members is None else None
        rest = [self.next_rates()[0], *tensors, *program.constants, *noise]
        inputs = [*program.leaves, *_smooth(self.state), *rest]
        floor = 0.0 if program.members is not None else rounding_of(program.gradients(tensors, noise)[2])
        states = [floor if name in LINEAR_STATES else 0.0 for name in self.state.names]
        floors = [0.0] * (1 + len(self.names) + len(program.leaves)) + states + [0.0] * len(rest)
        return replace(self, run=compile_checked(self.source, inputs, reference, floors))


@dataclass(frozen=True)
class SplitForm:
    """For several processes: gradients and optimizer are two graphs, with a sum over the processes between them.

    Attributes:
        state: of the optimizer.
        source: of the graph, see `vae_pyro.svi.step_graphs.move_graph`.
        run: the graph, interpreted or compiled.
    """

    program: Program
    state: OptimizerState
    reducer: Reducer
    source: Source
    run: Run
    names: Sequence[str]

    @classmethod
    def of(cls, program: Program, slots: list[Slot], clip_norm: float | None, reducer: Reducer) -> Self:
        """Put the optimizer of the leaves that are used behind a program."""
        source = move_source(program.graph, slots, clip_norm)
        names = metrics_of(program.graph, clip_norm)
        return cls(program, OptimizerState(slots), reducer, source, source.interpreted, names)

    @property
    def stale(self) -> bool:
        return self.state.stale

    def take(self, tensors: Sequence[Tensor], noise: Sequence[Tensor], share: float) -> tuple[Tensor, Metrics]:
        program = self.program
        loss, metrics, gradients = program.gradients(tensors, noise)
        named = dict(zip(program.used_names, gradients, strict=True))
        return self.move(*self.reducer.sum(loss, metrics, named, share))

    def move(self, loss: Tensor, metrics: Metrics, gradients: Sequence[Tensor]) -> tuple[Tensor, Metrics]:
        """The optimizer's part of a step, in place; what is given has been summed over the processes."""
        program = self.program
        rates = self.state.next_rates(program.leaves[0])[0]
        self.state.count_up()
        summed = [loss, *(metrics[name] for name in program.graph.metrics), *gradients]
        with torch.no_grad():
            outputs = self.run([*program.leaves, *self.state.tensors(), rates, *summed])
        return outputs[0], dict(zip(self.names, outputs[1:], strict=True))

    def compiled(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> Self:
        loss, metrics, gradients = self.program.gradients(tensors, noise)
        program = self.program.compiled(tensors, noise)
        rates = self.state.next_rates(program.leaves[0])[0]
        inputs = [*program.leaves, *_smooth(self.state), rates, loss, *metrics.values(), *gradients]
        return replace(self, program=program, run=compile_checked(self.source, inputs))


def _smooth(state: OptimizerState) -> list[Tensor]:
    """Optimizer states to compare two versions of a step at.

    From a state of zeros, Adam's first step is the sign of the gradient, rounding included; from these it is smooth in
    everything that it reads.
    """
    return [
        torch.full_like(tensor, 1.0 if "sq" in name else 0.5, requires_grad=False)
        for name, tensor in zip(state.names, state.tensors(), strict=True)
    ]
