"""One step with a given program: in the form that it has reached, which is traced, compiled, or whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, Protocol, Self

import pyro
import torch
from torch import Tensor, fx

from vae_pyro.compilation.inductor import CompileError, compile_checked, rounding_of
from vae_pyro.svi.inference import restore
from vae_pyro.svi.optimizer_rules import LINEAR_STATES
from vae_pyro.svi.optimizer_state import OptimizerState, Slot
from vae_pyro.svi.outside.generator_states import put_torch_states, torch_states
from vae_pyro.svi.outside.surroundings import Surroundings
from vae_pyro.svi.parameters import Parameters
from vae_pyro.svi.parity import reference_step
from vae_pyro.svi.program import Metrics, Program, Run, interpreted
from vae_pyro.svi.reducer import Reducer
from vae_pyro.svi.step_graphs import metrics_of, move_graph, only, step_graph
from vae_pyro.svi.stock import Fallbacks, StockOptimizer

type Compile = bool | int | Literal["auto", "never"]

_MAX_FAILURES, _FAILING_SHARE = 5, 0.1


class NotFiniteError(ArithmeticError):
    """The loss of a compiled step is not finite, or a check of its values has failed."""


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
        floor = 0.0 if program.members is not None else rounding_of(program.gradients(tensors, noise)[2])
        states = [floor if name in LINEAR_STATES else 0.0 for name in self.state.names]
        floors = [0.0] * (1 + len(self.names) + len(program.leaves)) + states + [0.0] * len(rest)
        return replace(self, run=compile_checked(self.module, inputs, reference, floors))


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
    """A traced program, what it has baked in, and how far it has come.

    Args:
        form: in which it is stepped first.
        surroundings: Python values that it has baked in.
        floats: floating-point numbers among the arguments that it has baked in, with their positions.

    Attributes:
        form: in which it is stepped.
        steps: taken so far.
        settled: whether the compiler has had its turn.
        failures: steps that were taken back.
        parameters: what it takes for granted of them.
    """

    def __init__(
        self,
        form: Form,
        surroundings: Surroundings | None = None,
        floats: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.form, self.steps, self.settled, self.failures = form, 0, False, 0
        self.surroundings, self.floats = surroundings, list(floats)
        program = form.program
        self.parameters = Parameters(program.names, program.leaves, program.graph.used)

    def accepts(self, floats: Sequence[tuple[int, float]]) -> bool:
        """Whether everything that it has baked in is what it was.

        Args:
            floats: floating-point numbers among the arguments of the step.
        """
        if self.floats:
            given = dict(floats)
            if any(given.get(at) != value for at, value in self.floats):
                return False
        if self.outdated or (self.surroundings is not None and not self.surroundings.hold()):
            return False
        if self.surroundings is not None and self.surroundings.bound:
            self.surroundings.rebind(self.form.program.constants)
        return True

    @property
    def fails_often(self) -> bool:
        """Whether so many steps are taken back that the stock step alone is faster."""
        return self.failures >= _MAX_FAILURES and self.failures > _FAILING_SHARE * self.steps

    @property
    def outdated(self) -> bool:
        """Whether its parameters or the options of their optimizer are others now."""
        return self.form.stale or self.parameters.outdated or self.parameters.gained_gradient

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

    Attributes:
        compilations: that have succeeded.
        seconds: that compiling has taken.
    """

    def __init__(self, optimizer: StockOptimizer, reducer: Reducer, fallbacks: Fallbacks) -> None:
        self.optimizer, self.reducer, self.fallbacks = optimizer, reducer, fallbacks
        self.compilations, self.seconds = 0, 0.0

    def begin(self, program: Program) -> GradientForm:
        """A program that has been traced, with its optimizer still outside."""
        return GradientForm(program, self.optimizer, self.reducer)

    def take(
        self,
        traced: Traced,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        compile: Compile,  # noqa: A002 (as for CompiledSVI)
        share: float,
        require_finite: bool = False,
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Take a step.

        Args:
            traced: for arguments of this shape.
            args: of the step.
            kwargs: likewise.
            compile: see `vae_pyro.svi.compiled_svi.CompiledSVI`.
            share: see `vae_pyro.svi.compiled_svi.CompiledSVI.take_step`.
            require_finite: look at the loss, which waits for the device.
            generators: of the noise of each member of an ensemble.

        Returns:
            The loss before the step, and its metrics.

        Raises:
            NotFiniteError: the loss is not finite, and that is required. Nothing has been changed.
        """
        program = traced.form.program
        tensors = program.tensors(args, kwargs)
        written = (
            [] if generators else [(tensor, tensor.clone()) for tensor in only(program.constants, program.written)]
        )
        before = [] if generators else torch_states()
        noise = program.draw(generators)
        if not traced.settled and self._is_time(compile, traced):
            self._compile(traced, tensors, noise)
        traced.steps += 1
        loss, metrics = traced.form.take(tensors, noise, share)
        if before and require_finite and not bool(torch.isfinite(loss)):
            put_torch_states(before)
            restore([tensor for tensor, _ in written], [value for _, value in written])
            raise NotFiniteError
        return loss, metrics

    @staticmethod
    def _is_time(compile: Compile, traced: Traced) -> bool:  # noqa: A002 (as for CompiledSVI)
        if compile == "auto":
            return traced.steps >= traced.form.program.graph.break_even()
        return compile is True or (compile is not False and traced.steps >= int(compile))

    def take_nothing(self, form: Form | None, leaves: Mapping[str, Tensor]) -> tuple[Tensor, Metrics]:
        """The step of a process that has no part of the batch.

        Args:
            form: in which a program is stepped, if one has been compiled.
            leaves: unconstrained parameters by name; those of the parameter store where a name is missing.
        """
        loss, metrics, gradients = self.reducer.sum_nothing()
        if isinstance(form, SplitForm):
            return form.move(loss, metrics, list(gradients.values()))
        store = pyro.get_param_store()._params
        moved = [leaves[name] if name in leaves else store[name] for name in gradients]
        return loss, metrics | self.optimizer.step_on(moved, list(gradients.values()), loss)

    def _compile(self, traced: Traced, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        traced.settled = True
        began = perf_counter()
        if isinstance(traced.form, GradientForm):
            traced.form = self._with_optimizer(traced.form)
        try:
            traced.form = traced.form.compiled(tensors, noise)
        except CompileError as error:
            self.fallbacks.say(f"{error}; the traced graph runs without a compiler", once="compiler")
        else:
            self.compilations += 1
        self.seconds += perf_counter() - began

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
