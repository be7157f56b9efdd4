"""Which program a step needs: the signature of its arguments, and the bounded table of programs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vae_pyro.svi.outside.places import NUMBERS
from vae_pyro.svi.stepper import Traced
from vae_pyro.svi.tracer import Attempt

MAX_PROGRAMS = 16
"""Programs that are traced; beyond these the stock step is taken."""
MAX_SIGNATURES = 1_024
"""Signatures of arguments that are remembered."""
MANY_SIGNATURES = 32
"""Signatures of which none has come twice, after which it is said that the arguments are others at every step."""
SOME_SIGNATURES = 8
"""Likewise, after which none is traced before it comes twice."""
_MAX_SETBACKS = 3  # attempts at one signature without a program
_MAX_INFINITE = 8  # of which the loss was not finite
_MAX_UNUSED = 4  # programs of one signature, one after another, that were used once


def signature_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the structure of a program can depend on in its arguments, and in global options of torch and Pyro.

    Floating-point numbers are left out: see `Programs.find`.
    """
    autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    options = (torch.get_default_dtype(), torch.distributions.Distribution._validate_args, autocast)
    if not kwargs and all(type(item) is Tensor for item in args):
        return tuple([(item.shape, item.stride(), item.dtype, item.device) for item in args]), options
    flat, spec = pytree.tree_flatten((args, kwargs))
    return tuple([_signature(item) for item in flat]), str(spec), options


def _signature(item: Any) -> Any:
    if isinstance(item, Tensor):
        strides = item.stride() if item.layout is torch.strided else None
        return type(item), item.layout, item.shape, strides, item.dtype, item.device, item.requires_grad
    if isinstance(item, NUMBERS):
        return type(item)
    if isinstance(item, partial):  # made anew at every step, of the same parts
        return partial, item.func, item.args, tuple(sorted(item.keywords.items()))
    # Namespaces and the like: what programs read of them is compared as their surroundings are.
    by_identity = type(item).__hash__ is None and isinstance(getattr(item, "__dict__", None), dict)
    return type(item), id(item) if by_identity else item


@dataclass
class Programs:
    """The programs of one signature of arguments.

    Attributes:
        traced: the programs, the last used first.
        refusal: why there are none, and will be none.
        encounters: steps with this signature.
        setbacks: attempts in a row that gave no program.
        lift: whether floating-point numbers that change may become inputs of a program.
        positions: of those among the arguments that have.
        numbers: labels of those outside that have.
        follow: whether programs read values of tensors in Python, and the way that a run takes is traced.
    """

    traced: list[Traced] = field(default_factory=list)
    refusal: str | None = None
    encounters: int = 0
    setbacks: int = 0
    lift: bool = True
    positions: set[int] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    follow: bool = False

    def find(self, floats: Sequence[tuple[int, float]]) -> Traced | None:
        """The program that has baked in what stands there now; ``None`` if there is none.

        Args:
            floats: floating-point numbers among the arguments, with their positions.
        """
        for number, traced in enumerate(self.traced):
            if traced.accepts(floats):
                if number:
                    self.traced.insert(0, self.traced.pop(number))
                return traced
        return None

    def drop_outdated(self) -> None:
        """Forget programs whose parameters or optimizer's options are others now."""
        self.traced = [traced for traced in self.traced if not traced.outdated]

    def lift_numbers(self, floats: Sequence[tuple[int, float]]) -> None:
        """Make numbers that have changed since the last program inputs of the next."""
        if not self.traced or not self.lift:
            return
        last = self.traced[0]
        before = dict(last.floats)
        self.positions |= {at for at, value in floats if at in before and before[at] != value}
        if last.surroundings is not None:
            self.numbers |= set(last.surroundings.changed_numbers())

    def note(self, attempt: Attempt) -> str | None:
        """Take in an attempt that gave no program; the reason, where it is final."""
        lifted = bool(self.positions or self.numbers)
        if lifted and (attempt.refusal or attempt.later):  # as fixed numbers they may do
            self.lift, self.positions, self.numbers = False, set(), set()
            return None
        if attempt.depends and not self.follow:
            self.follow = True
            return None
        self.setbacks += 1
        if attempt.refusal is not None:
            self.refusal = attempt.refusal
        elif self.setbacks >= (_MAX_SETBACKS if attempt.run.finite else _MAX_INFINITE):
            self.refusal = attempt.later
        return self.refusal

    def add(self, traced: Traced) -> None:
        """Take in a program."""
        self.setbacks = 0
        self.traced.insert(0, traced)

    @property
    def unsteady(self) -> str | None:
        """What changes from step to step, so that no program is used twice; ``None`` where programs are used."""
        if len(self.traced) < _MAX_UNUSED or any(traced.steps > 1 for traced in self.traced[:_MAX_UNUSED]):
            return None
        newest = self.traced[0]
        changed = [] if newest.surroundings is None else newest.surroundings.changed()
        return ", ".join(changed[:3]) or "an argument"


class ProgramTable:
    """The programs of one `vae_pyro.svi.compiled_svi.CompiledSVI`."""

    def __init__(self) -> None:
        self._table: dict[Any, Programs] = {}

    def __len__(self) -> int:
        return sum(len(programs.traced) for programs in self._table.values())

    def __iter__(self) -> Iterator[Traced]:
        """All programs."""
        return (traced for programs in self._table.values() for traced in programs.traced)

    @property
    def full(self) -> bool:
        """Whether no other program is to be traced."""
        return len(self) >= MAX_PROGRAMS

    def unused(self, at_least: int) -> bool:
        """Whether there are so many signatures, none of which has come twice."""
        return len(self._table) > at_least and all(programs.encounters < 2 for programs in self._table.values())

    def at(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Programs | None:
        """The programs for the signature of these arguments.

        Returns:
            ``None`` where an argument is not hashable, or there are too many signatures.
        """
        signature = signature_of(args, kwargs), pyro.settings.get("module_local_params")
        try:
            programs = self._table.get(signature)
        except TypeError:
            return None
        if programs is None and len(self._table) < MAX_SIGNATURES:
            programs = self._table[signature] = Programs()
        return programs

    def forget(self) -> None:
        """Drop all programs."""
        self._table.clear()


def floats_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int, float]]:
    """Floating-point numbers among arguments, with their positions in the flattened arguments."""
    if not kwargs and all(type(item) is Tensor for item in args):
        return []
    return [
        (at, float(item)) for at, item in enumerate(pytree.tree_leaves((args, kwargs))) if isinstance(item, NUMBERS)
    ]
