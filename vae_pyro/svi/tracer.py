"""From the arguments of a step to a program that has passed the parity gate."""

from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError
from vae_pyro.svi.inference import Inference, generators_kept
from vae_pyro.svi.parity import TraceLaterError, require_parity
from vae_pyro.svi.program import Program


class Tracer:
    """Traces the programs of one inference.

    Args:
        inference: programs and loss.
        in_stock_order: parameters that the programs make at random are left to a stock step, which draws them and the
            noise from one generator in the stock order.

    Attributes:
        leaves: unconstrained parameters by name, as the last trace has found them.
    """

    def __init__(self, inference: Inference, *, in_stock_order: bool) -> None:
        self.inference, self.in_stock_order = inference, in_stock_order
        self.leaves: dict[str, Tensor] = {}

    @property
    def outdated(self) -> bool:
        """Whether the parameter store has been cleared or loaded since the last trace."""
        store = pyro.get_param_store()._params
        return any(store.get(name) is not leaf for name, leaf in self.leaves.items())

    def leaf(self, name: str) -> Tensor:
        """An unconstrained parameter, whether or not a program has been traced."""
        held = self.leaves.get(name)
        leaf: Tensor = pyro.get_param_store()._params[name] if held is None else held
        return leaf

    def forget(self) -> None:
        """Drop what the last trace has found."""
        self.leaves = {}

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The program for arguments of a step. It has been compared with the stock loss and has its parameters.

        Raises:
            CaptureError: it cannot be written as a static graph, or disagrees with the stock loss.
            TraceLaterError: this step has to be a stock step.
        """
        self.leaves = self._make_parameters(args, kwargs)
        if not self.leaves:
            raise CaptureError("the programs have no parameters")
        graph = self.inference.capture(self.leaves, args, kwargs)
        program = Program.traced(graph, self.leaves, pytree.tree_leaves((args, kwargs)))
        require_parity(program, self.inference, args, kwargs)
        return program

    def _make_parameters(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Run the loss so that parameters which the programs make are there, without moving the generator.

        Raises:
            TraceLaterError: the first run of all draws more than the others, to start parameters or to guess the
                depth of plates; only a stock step draws all of it in the stock order.
        """
        store, loss = pyro.get_param_store(), self.inference.loss
        before, options = set(store.keys()), dict(getattr(loss, "__dict__", {}))
        ends: list[Tensor] = []
        leaves: dict[str, Tensor] = {}
        for _ in range(2 if self.in_stock_order and not self.leaves else 1):
            with generators_kept():
                leaves = self.inference.find_leaves(args, kwargs)
                ends.append(torch.get_rng_state())
        if not torch.equal(ends[0], ends[-1]):  # the first run drew more: undo it, and let a stock step do it
            for name in set(store.keys()) - before:
                del store[name]
            loss.__dict__.update(options)
            raise TraceLaterError("the first run draws more than the others")
        return leaves
