"""From the arguments of a step to a program that has passed the parity gate."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
from torch import Tensor
from torch.utils import _pytree as pytree

from vae_pyro.compilation.capture import NumberInput
from vae_pyro.compilation.graph import CaptureError, ValueDependentError
from vae_pyro.compilation.modes import Decisions
from vae_pyro.svi.inference import Inference
from vae_pyro.svi.outside.places import set_entries
from vae_pyro.svi.outside.reach import UnwatchableError
from vae_pyro.svi.outside.surroundings import Surroundings
from vae_pyro.svi.parity import Before
from vae_pyro.svi.program import Program
from vae_pyro.svi.stock import StockRun, StockStep


@dataclass(frozen=True)
class Attempt:
    """A run of the stock loss, and what a program has come to beside it.

    Attributes:
        run: of the stock loss, whose gradients stand in the parameters.
        before: state before it; ``None`` where it could not be found.
        program: that agrees with it; ``None`` where there is none.
        surroundings: values that the program has baked in.
        refusal: why there is none, and will be none.
        later: why there is none this time.
        depends: whether the reason is that the programs read values of tensors in Python.
    """

    run: StockRun
    before: Before | None = None
    program: Program | None = None
    surroundings: Surroundings | None = None
    refusal: str | None = None
    later: str | None = None
    depends: bool = False


class Tracer:
    """Runs the stock loss and traces it, for one inference.

    Args:
        inference: programs and loss.
        stock: its stock step.
    """

    def __init__(self, inference: Inference, stock: StockStep) -> None:
        self.inference, self.stock = inference, stock

    def attempt(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        program: Program | None = None,
        positions: Sequence[int] = (),
        numbers: Sequence[str] = (),
        follow: bool = False,
    ) -> Attempt:
        """Run the stock loss, and find a program that agrees with it.

        Everything is then as after the stock run, so that its step can be finished; `Before.rewind` undoes the run.

        Args:
            args: of a step.
            kwargs: likewise.
            program: that is compared again; ``None`` traces one.
            positions: of the floating-point numbers among the arguments that are inputs of the program.
            follow: trace the way through the code that this run takes, where it depends on values of tensors.
            numbers: labels of the places whose numbers are inputs.
        """
        flat = pytree.tree_leaves((args, kwargs))
        others = {f"argument {at}": item for at, item in enumerate(flat) if not isinstance(item, Tensor)}
        try:
            surroundings = Surroundings({**self.inference.roots, **others}, numbers)
        except UnwatchableError as error:
            return Attempt(self.stock.run(args, kwargs), refusal=str(error))
        before = Before(surroundings)
        decisions = Decisions() if follow else None
        with decisions or nullcontext():
            run = self.stock.run(args, kwargs)
        refusal = self._refusal(run, before, flat)
        later, depends = None, False
        if refusal is None:
            effects = before.side_effects()
            if effects:
                later = f"each step changes {', '.join(effects[:3])}"
            elif not run.finite:
                later = "the stock loss is not finite on this batch"
        if refusal is None and later is None:
            try:
                if program is None:
                    program = self._trace(run, surroundings, args, kwargs, positions, decisions)
                later = before.disagreement(program, run, args, kwargs)
                if later is None:
                    surroundings.bind_tensors(program.constants)
            except CaptureError as error:
                refusal, depends = str(error), isinstance(error, ValueDependentError)
        done = None if refusal or later else program
        return Attempt(run, before, done, surroundings, refusal, later, depends)

    def _refusal(self, run: StockRun, before: Before, flat: Sequence[Any]) -> str | None:
        """Why no program can take the place of what has been run; ``None`` where one may."""
        moved = before.generators.moved()
        trained = {name: leaf for name, leaf in run.leaves.items() if leaf.requires_grad}
        reasons = {
            f"the programs draw from {', '.join(moved)}": bool(moved),
            "an argument requires a gradient": any(isinstance(item, Tensor) and item.requires_grad for item in flat),
            "the loss is several numbers": isinstance(run.loss, tuple),
            "a parameter has gradient hooks": any(
                leaf._backward_hooks or leaf._post_accumulate_grad_hooks for leaf in trained.values()
            ),
            "the programs have no parameters": not trained,
            _without_parameters(trained): all(leaf.grad is None for leaf in trained.values()),
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def _trace(
        self,
        run: StockRun,
        surroundings: Surroundings,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        positions: Sequence[int],
        decisions: Decisions | None,
    ) -> Program:
        leaves = {name: leaf for name, leaf in run.leaves.items() if leaf.requires_grad}
        flat, spec = pytree.tree_flatten((args, kwargs))
        items = [NumberInput(item) if at in positions else item for at, item in enumerate(flat)]
        with _no_trace_left(surroundings, self.inference.loss):
            graph = self.inference.capture(list(leaves.values()), items, spec, surroundings.numbers, decisions)
        return Program.traced(graph, leaves, items, surroundings.numbers)


def _without_parameters(trained: Mapping[str, Tensor]) -> str:
    stale = [name.replace("$$$", ".") for name in trained if "$$$" in name]
    if not stale:
        return "the loss depends on no parameter"
    return (
        f"the loss depends on no parameter: {stale[0]} of the parameter store is not the module's; call "
        "pyro.clear_param_store() before another pair of the same names"
    )


@contextmanager
def _no_trace_left(surroundings: Surroundings, loss: Any) -> Iterator[None]:
    """Run programs under a tracer, which leaves its own tensors in modules, and take everything back."""
    store = pyro.get_param_store()
    kept = [dict(table) for table in (store._params, store._constraints, store._param_to_name)]
    attributes = [(module, dict(vars(module))) for module in surroundings.modules]
    before = Before(surroundings)
    options = dict(getattr(loss, "__dict__", {}))
    try:
        yield
    finally:
        for module, held in attributes:
            set_entries(vars(module), held)
        before.rewind()
        for table, entries in zip((store._params, store._constraints, store._param_to_name), kept, strict=True):
            set_entries(table, entries)
        if options:
            set_entries(vars(loss), options)
