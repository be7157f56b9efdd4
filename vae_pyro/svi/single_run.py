"""The steps of a single run: which form each takes, from the stock step to a compiled program."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from vae_pyro.svi import keys
from vae_pyro.svi.inference import Inference
from vae_pyro.svi.keys import Programs, ProgramTable, floats_of
from vae_pyro.svi.parity import CHECKS_FAIL, is_check_due
from vae_pyro.svi.program import Metrics
from vae_pyro.svi.status import SVIStatus
from vae_pyro.svi.stepper import Compile, NotFiniteError, Stepper, Traced
from vae_pyro.svi.stock import Fallbacks, StockStep
from vae_pyro.svi.tracer import Attempt, Tracer

type Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class SingleRun:
    """Takes each step with a program that agrees with the stock step, or as the stock step.

    Args:
        stock: the stock step.
        stepper: takes steps with programs.
        fallbacks: hears why steps are stock steps.

    Attributes:
        programs: traced so far.
        tracer: makes them.
        leaves: unconstrained parameters of the last program, by name.
        status: what has been run.
    """

    def __init__(self, stock: StockStep, stepper: Stepper, fallbacks: Fallbacks) -> None:
        self.stock, self.stepper, self.fallbacks = stock, stepper, fallbacks
        self.tracer, self.programs = Tracer(stock.inference, stock), ProgramTable()
        self.leaves: dict[str, Tensor] = {}
        self.status = SVIStatus()

    def follow(self, inference: Inference) -> None:
        """Go on with another problem."""
        self.stock.inference = self.tracer.inference = inference
        self.forget()

    def forget(self) -> None:
        """Drop all programs."""
        self.programs.forget()
        self.leaves = {}

    def stock_reason(self, mode: Compile) -> str | None:
        """Why no program is looked for; ``None`` where one is."""
        if mode == "never":
            return "compile='never'"
        if am_i_wrapped():
            self.fallbacks.say("the step runs under effect handlers from outside, as the stock step")
            return "effect handlers from outside"
        return None if torch.is_grad_enabled() else "gradients are disabled"

    def take(self, arguments: Arguments, mode: Compile, share: float, *, wait: bool) -> tuple[Any, Metrics]:
        """Loss and metrics of a step.

        Args:
            arguments: of the step.
            mode: see `vae_pyro.svi.compiled_svi.CompiledSVI`.
            share: see `vae_pyro.svi.compiled_svi.CompiledSVI.take_step`.
            wait: the loss is going to be read, so that it may be looked at.
        """
        programs = self._programs_for(arguments, mode)
        if programs is None:
            return self._take_stock(arguments, share)
        traced = programs.find(floats_of(*arguments))
        programs.encounters += 1
        if traced is None and not self._may_trace(programs, mode):
            return self._take_stock(arguments, share)
        if traced is None or is_check_due(traced.steps) or not traced.parameters.gradients_are_free:
            attempt = self._attempt(programs, arguments, traced)
            traced = self._enter(programs, attempt, arguments, traced)
            if traced is None:
                return self._counted(self.stock.finish(attempt.run, share))
            self._take_back(attempt)
        looks = self.stepper.reducer.alone and not self.stock.skip_nonfinite
        require_finite = looks and (wait or traced.form.program.leaves[0].device.type == "cpu")
        try:
            return self.stepper.take(traced, *arguments, compile=mode, share=share, require_finite=require_finite)
        except NotFiniteError:
            self._count_failure(programs, traced)
            return self._take_stock(arguments, share)

    def trace(self, arguments: Arguments, mode: Compile) -> bool:
        """Trace without a step; whether there is a program now."""
        programs = self._programs_for(arguments, mode)
        if programs is None:
            return False
        if programs.find(floats_of(*arguments)) is not None:
            return True
        if programs.refusal is not None or self.programs.full:
            return False
        attempt = self._attempt(programs, arguments, None)
        self._take_back(attempt)
        return self._enter(programs, attempt, arguments, None) is not None

    def find_block(self, batch: Callable[[], tuple[Any, ...]], steps: int, mode: Compile) -> Traced | None:
        """The program with which so many steps on such batches can be taken at once, if it has been traced."""
        if not self.stepper.reducer.alone or not len(self.programs) or self.stock_reason(mode):
            return None
        programs = self.programs.at(batch(), {})
        traced = None if programs is None else programs.find(())
        if traced is None or is_check_due(traced.steps, steps) or not traced.parameters.gradients_are_free:
            return None
        return traced

    # --- stock steps ----------------------------------------------------------------------------------------------

    def _take_stock(self, arguments: Arguments, share: float) -> tuple[Any, Metrics]:
        return self._counted(self.stock.take(*arguments, share))

    def _counted(self, taken: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
        self.status.stock_steps += 1
        return taken

    def _refuse(self, programs: Programs, reason: str) -> None:
        programs.refusal = reason
        self.fallbacks.say(f"the step cannot be compiled: {reason}; stock steps are taken")

    def _count_failure(self, programs: Programs, traced: Traced) -> None:
        traced.failures += 1
        if traced.fails_often:
            programs.traced.remove(traced)
            self.status.retire(traced)
            self._refuse(programs, CHECKS_FAIL)

    # --- programs -------------------------------------------------------------------------------------------------

    def _programs_for(self, arguments: Arguments, mode: Compile) -> Programs | None:
        if self.stock_reason(mode) is not None:
            return None
        programs = self.programs.at(*arguments)
        if programs is None:
            self.fallbacks.say("an argument of the step is neither a tensor nor hashable; stock steps are taken")
        elif programs.encounters == 0 and self.programs.unused(keys.MANY_SIGNATURES):
            self.fallbacks.say("the arguments of the step are others at every step; stock steps are taken")
        return programs

    def _may_trace(self, programs: Programs, mode: Compile) -> bool:
        """Whether this step may make a new program; what rules it out for good is said."""
        waits = mode == "auto" or self.programs.unused(keys.SOME_SIGNATURES)
        if programs.refusal is not None or (waits and programs.encounters < 2):
            return False
        programs.drop_outdated()
        if programs.unsteady is not None:
            self._refuse(programs, f"{programs.unsteady} changes at every step")
            return False
        if self.programs.full:
            self.fallbacks.say(f"more than {keys.MAX_PROGRAMS} combinations of arguments; others take the stock step")
            return False
        return True

    def _attempt(self, programs: Programs, arguments: Arguments, traced: Traced | None) -> Attempt:
        """A stock run, with a program traced beside it or compared with it."""
        if traced is None:
            programs.lift_numbers(floats_of(*arguments))
        return self.tracer.attempt(
            *arguments,
            program=None if traced is None else traced.form.program,
            positions=sorted(programs.positions),
            numbers=sorted(programs.numbers),
            follow=programs.follow and traced is None,
        )

    def _enter(
        self, programs: Programs, attempt: Attempt, arguments: Arguments, traced: Traced | None
    ) -> Traced | None:
        """The program of an attempt; where there is none, the reason is kept, and said if it is final.

        Args:
            programs: of the same signature.
            attempt: that was made.
            arguments: of the step.
            traced: that was compared again, if any.
        """
        if attempt.program is not None:
            self.status.checks += 1
            if traced is None:
                fixed = [(at, value) for at, value in floats_of(*arguments) if at not in programs.positions]
                traced = Traced(self.stepper.begin(attempt.program), attempt.surroundings, fixed)
                programs.add(traced)
                self.leaves = dict(zip(attempt.program.names, attempt.program.leaves, strict=True))
            return traced
        if traced is None:
            reason = programs.note(attempt)
            if reason is not None:
                self._refuse(programs, reason)
        elif attempt.later == CHECKS_FAIL:
            traced.steps += 1
            self._count_failure(programs, traced)
        elif attempt.refusal or attempt.run.finite:
            self.status.retire(*programs.traced)
            programs.traced.clear()
            self._refuse(programs, str(attempt.refusal or attempt.later))
        return None

    def _take_back(self, attempt: Attempt) -> None:
        """Undo the stock run of an attempt."""
        if attempt.before is not None:
            attempt.before.rewind()
        self.stepper.optimizer.clear(list(attempt.run.leaves.values()))
