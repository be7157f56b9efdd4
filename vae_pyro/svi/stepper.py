"""One step with a given program: in the form that it has reached, which is traced, compiled, or whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, fx

from vae_pyro.compilation.inductor import CompileError, compile_checked
from vae_pyro.svi.optimizer_state import OptimizerState, Slot
from vae_pyro.svi.parity import reference_step
from vae_pyro.svi.program import Metrics, Program, Run, interpreted
from vae_pyro.svi.reducer import Reducer
from vae_pyro.svi.step_graphs import metrics_of, move_graph, step_graph
from vae_pyro.svi.stock import Fallbacks, StockOptimizer

type Compile = bool | int | Literal["never"]


class Form(Protocol):
    """How a step is taken with a program. Forms are replaced by others, and do not change."""

    @property
    def program(self) -> Program:
        """What gives loss and gradient."""

    @property
    def stale(self) -> bool:
        """Whether something has changed that the form has baked in, so that its program has to be traced again."""

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
        module: see `vae_pyro.svi.step_graphs.step_graph`.
        run: the module, interpreted or compiled.
    """

    program: Program
    state: OptimizerState
    clip_norm: float | None
    module: fx.GraphModule
    run: Run
    names: Sequence[str]

    @classmethod
    def of(cls, program: Program, slots: list[Slot], clip_norm: float | None) -> Self:
        """Put the optimizer of the leaves that are used into a program."""
        module = step_graph(program.graph, slots, clip_norm, program.members, program.own)
        names = metrics_of(program.graph, clip_norm)
        return cls(program, OptimizerState(slots), clip_norm, module, interpreted(module), names)

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
        return replace(self, run=compile_checked(self.module, inputs, reference))


@dataclass(frozen=True)
class SplitForm:
    """For several processes: gradients and optimizer are two graphs, with a sum over the processes between them.

    Attributes:
        state: of the optimizer.
        module: see `vae_pyro.svi.step_graphs.move_graph`.
        run: the module, interpreted or compiled.
    """

    program: Program
    state: OptimizerState
    reducer: Reducer
    module: fx.GraphModule
    run: Run
    names: Sequence[str]

    @classmethod
    def of(cls, program: Program, slots: list[Slot], clip_norm: float | None, reducer: Reducer) -> Self:
        """Put the optimizer of the leaves that are used behind a program."""
        module = move_graph(program.graph, slots, clip_norm)
        names = metrics_of(program.graph, clip_norm)
        return cls(program, OptimizerState(slots), reducer, module, interpreted(module), names)

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
        return replace(self, program=program, run=compile_checked(self.module, inputs))


def _smooth(state: OptimizerState) -> list[Tensor]:
    """Optimizer states to compare two versions of a step at.

    From a state of zeros, Adam's first step is the sign of the gradient, rounding included; from these it is smooth in
    everything that it reads.
    """
    return [
        torch.full_like(tensor, 1.0 if "sq" in name else 0.5, requires_grad=False)
        for name, tensor in zip(state.names, state.tensors(), strict=True)
    ]


class Traced:
    """A traced program, and how far it has come.

    Attributes:
        form: in which it is stepped.
        steps: taken so far.
        settled: whether the compiler has had its turn.
    """

    def __init__(self, form: Form) -> None:
        self.form, self.steps, self.settled = form, 0, False

    @property
    def block_form(self) -> WholeForm | None:
        """The form for many steps at once: whole, and run before, so that nothing is left to compile; else ``None``."""
        whole = self.form if isinstance(self.form, WholeForm) else None
        return None if whole is None or self.steps == 0 or whole.stale else whole


class Stepper:
    """Takes steps with traced programs, and compiles them when it is time.

    Args:
        optimizer: the user's.
        reducer: of the processes that take every step together.
        fallbacks: hears of steps that are slower than was asked for.
    """

    def __init__(self, optimizer: StockOptimizer, reducer: Reducer, fallbacks: Fallbacks) -> None:
        self.optimizer, self.reducer, self.fallbacks = optimizer, reducer, fallbacks

    def begin(self, program: Program) -> Traced:
        """A program that has been traced, with its optimizer still outside."""
        return Traced(GradientForm(program, self.optimizer, self.reducer))

    def take(
        self,
        traced: Traced,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        compile: Compile,  # noqa: A002 (as for CompiledSVI)
        share: float,
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Take a step.

        Args:
            traced: for arguments of this shape.
            args: of the step.
            kwargs: likewise.
            compile: see `vae_pyro.svi.compiled_svi.CompiledSVI`.
            share: see `vae_pyro.svi.compiled_svi.CompiledSVI.take_step`.
            generators: of the noise of each member of an ensemble.

        Returns:
            The loss before the step, and its metrics.
        """
        program = traced.form.program
        tensors = program.tensors(args, kwargs)
        noise = program.draw(generators)
        if not traced.settled and (compile is True or (compile is not False and traced.steps >= int(compile))):
            self._compile(traced, tensors, noise)
        traced.steps += 1
        return traced.form.take(tensors, noise, share)

    def take_nothing(self, form: Form | None, leaf: Callable[[str], Tensor]) -> tuple[Tensor, Metrics]:
        """The step of a process that has no part of the batch.

        Args:
            form: in which a program is stepped, if one has been compiled.
            leaf: the unconstrained parameter of a name.
        """
        loss, metrics, gradients = self.reducer.sum_nothing()
        if isinstance(form, SplitForm):
            return form.move(loss, metrics, list(gradients.values()))
        moved = [leaf(name) for name in gradients]
        return loss, metrics | self.optimizer.step_on(moved, list(gradients.values()), loss)

    def _compile(self, traced: Traced, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        traced.settled = True
        if isinstance(traced.form, GradientForm):
            traced.form = self._with_optimizer(traced.form)
        try:
            traced.form = traced.form.compiled(tensors, noise)
        except CompileError as error:
            self.fallbacks.say(f"{error}; the traced graph runs without a compiler", once="compiler")

    def _with_optimizer(self, form: GradientForm) -> Form:
        program, slots = form.program, self.optimizer.slots(form.program.used)
        if slots is None:
            self.fallbacks.say(
                f"no rule for the optimizer {self.optimizer.name} with these options: loss and gradient are compiled, "
                "its step is its own"
            )
            return form
        if self.reducer.alone:
            return WholeForm.of(program, slots, self.optimizer.clip_norm)
        return SplitForm.of(program, slots, self.optimizer.clip_norm, self.reducer)
