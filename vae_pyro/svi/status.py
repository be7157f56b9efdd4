"""What a `vae_pyro.svi.compiled_svi.CompiledSVI` runs, and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from vae_pyro.svi.stepper import Stepper, Traced


@dataclass
class SVIStatus:
    """Which form the steps have taken so far.

    Attributes:
        programs: that have been traced and can be used.
        compiled: of those, that are compiled.
        waiting: steps after which the next program is compiled, where it is to be.
        program_steps: steps taken with them.
        stock_steps: stock steps.
        compilations: of the compiler, and its ``seconds``.
        seconds: that compiling has taken.
        checks: comparisons with the stock step that programs have passed.
        fallbacks: reasons for stock steps, and for steps without a compiler.
    """

    programs: int = 0
    compiled: int = 0
    waiting: int | None = None
    program_steps: int = 0
    stock_steps: int = 0
    compilations: int = 0
    seconds: float = 0.0
    checks: int = 0
    fallbacks: list[str] = field(default_factory=list)
    _retired: int = field(default=0, repr=False)

    def retire(self, *programs: Traced) -> None:
        """Remember the steps of programs that are no longer used."""
        self._retired += sum(traced.steps - traced.failures for traced in programs)

    def count(self, programs: Iterable[Traced], stepper: Stepper, fallbacks: list[str]) -> None:
        """Take in the programs as they are now."""
        known = list(programs)
        self.programs = len(known)
        settled = [traced for traced in known if traced.settled]
        self.compiled = len(settled) if stepper.compilations else 0
        rest = [traced.form.program.graph.break_even - traced.steps for traced in known if not traced.settled]
        self.waiting = min(rest, default=None)
        self.program_steps = self._retired + sum(traced.steps - traced.failures for traced in known)
        self.compilations, self.seconds = stepper.compilations, stepper.seconds
        self.fallbacks = fallbacks

    @property
    def runs(self) -> str:
        """``compiled``, ``traced`` or ``stock``: the form of the latest programs."""
        return "compiled" if self.compiled else "traced" if self.programs else "stock"

    def __str__(self) -> str:
        parts = [
            f"{self.runs}: {self.programs} programs with {self.program_steps} steps, {self.stock_steps} stock steps",
            f"{self.compilations} compilations in {self.seconds:.1f} s",
            f"{self.checks} comparisons with the stock step passed",
        ]
        if self.runs == "traced" and self.waiting is not None:
            parts.append(f"compiling pays after {max(self.waiting, 0)} more steps")
        return "; ".join([*parts, *self.fallbacks])
