"""One step with a given program: in the form that it has reached, which is traced, compiled, or whole."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from vae_pyro.compilation.inductor import CompileError
from vae_pyro.compilation.worth import Plan
from vae_pyro.svi.forms import Form, GradientForm, SplitForm, WholeForm
from vae_pyro.svi.inference import restore
from vae_pyro.svi.outside.generator_states import put_torch_states, torch_states
from vae_pyro.svi.outside.surroundings import Surroundings
from vae_pyro.svi.parameters import Parameters
from vae_pyro.svi.program import Metrics, Program
from vae_pyro.svi.reducer import Reducer
from vae_pyro.svi.step_graphs import only
from vae_pyro.svi.stock import Fallbacks, StockOptimizer

type Compile = bool | int | Literal["auto", "never"] | Plan

_MAX_FAILURES, _FAILING_SHARE = 5, 0.1


class NotFiniteError(ArithmeticError):
    """The loss of a compiled step is not finite, or a check of its values has failed."""


class Traced:
    """A traced program, what it has baked in, and how far it has come.

    Args:
        form: in which it is stepped first.
        surroundings: Python values that it has baked in.
        floats: floating-point numbers among the arguments that it has baked in, with their positions.
        single: the program of one run, for that of an ensemble, whose own parameters are no leaves of the programs.

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
        single: Program | None = None,
    ) -> None:
        self.form, self.steps, self.settled, self.failures = form, 0, False, 0
        self.surroundings, self.floats = surroundings, list(floats)
        if single is not None and surroundings is not None:
            surroundings.unbind_tensors()
        program = single or form.program
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

    def _is_time(self, compile: Compile, traced: Traced) -> bool:  # noqa: A002 (as for CompiledSVI)
        if isinstance(compile, Plan):
            if compile.compiled is not None:
                return compile.compiled
            form = traced.form
            whole = self._with_optimizer(form) if isinstance(form, GradientForm) else None
            return compile.compiles(form.program.graph, (whole or form).source)
        if compile == "auto":
            return traced.steps >= traced.form.program.graph.break_even
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
            whole = self._with_optimizer(traced.form)
            if whole is None:
                self.fallbacks.say(
                    f"no rule for the optimizer {self.optimizer.name} with these options: loss and gradient are "
                    "compiled, its step is its own"
                )
            traced.form = whole or traced.form
        try:
            traced.form = traced.form.compiled(tensors, noise)
        except CompileError as error:
            self.fallbacks.say(f"{error}; the traced graph runs without a compiler", once="compiler")
        else:
            self.compilations += 1
        self.seconds += perf_counter() - began

    def _with_optimizer(self, form: GradientForm) -> Form | None:
        """The program with the optimizer inside; ``None`` where no rule covers it."""
        program, slots = form.program, self.optimizer.slots(form.program.used)
        if slots is None:
            return None
        if self.reducer.alone:
            return WholeForm.of(program, slots, self.optimizer.clip_norm)
        return SplitForm.of(program, slots, self.optimizer.clip_norm, self.reducer)
