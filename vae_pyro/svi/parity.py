"""The parity gates: what is traced or compiled has to agree with the stock step at the same noise before it is used."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_pyro.compilation.graph import Graph
from vae_pyro.compilation.inductor import disagreement, rounding_of
from vae_pyro.svi.inference import restore
from vae_pyro.svi.optimizer_state import Slot
from vae_pyro.svi.outside.generator_states import GeneratorStates, put_torch_states, torch_states
from vae_pyro.svi.outside.surroundings import Surroundings
from vae_pyro.svi.program import Program
from vae_pyro.svi.step_graphs import only
from vae_pyro.svi.stock import StockRun

CHECKS_FAIL = "branches, sizes or supports that depend on values are others at many steps"
"""A program has taken something for granted that does not hold at this step; it may hold at others."""
_NEXT_CHECKS = (2, *(10**power for power in range(1, 12)))


def is_check_due(steps: int, count: int = 1) -> bool:
    """Whether one of the next steps of a program is compared with the stock step: the 2nd, 10th, 100th, ...

    Args:
        steps: that it has taken.
        count: of the next steps.
    """
    return any(steps < number <= steps + count for number in _NEXT_CHECKS)


class Before:
    """State before a stock run of a program: what a traced program has to start from to be compared with it.

    Args:
        surroundings: of the programs.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.generators = GeneratorStates(surroundings.generators)
        self._buffers = surroundings.buffers
        self._values = [buffer.detach().clone() for buffer in self._buffers]
        self._read = [(label, tensor, tensor._version) for label, tensor in surroundings.tensors]

    def side_effects(self) -> list[str]:
        """What the run has changed, of what a traced program would leave as it is."""
        written = [label for label, tensor, version in self._read if tensor._version != version]
        return [*self.surroundings.changed(), *written]

    def rewind(self) -> None:
        """Undo the run: generators, buffers and Python values."""
        self.surroundings.put_back()
        self.rewind_tensors()
        self.generators.put_back()

    def rewind_tensors(self) -> None:
        """Undo what the run has done to buffers and to torch's generators."""
        restore(self._buffers, self._values)
        self.generators.put_back_torch()

    def disagreement(
        self, program: Program, run: StockRun, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str | None:
        """What differs between a program and a run of the stock loss from the same state; ``None`` if nothing.

        Generators and buffers are left as the run has left them.

        Args:
            program: of one run.
            run: its gradients stand in the leaves still.
            args: of the step.
            kwargs: likewise.
        """
        expected = [leaf.grad for leaf in program.leaves]
        if [gradient is not None for gradient in expected] != program.graph.used:
            return "the graph and the stock loss depend on different parameters"
        ends, buffers = torch_states(), [buffer.detach().clone() for buffer in self._buffers]
        self.rewind_tensors()
        try:
            loss, _, gradients = program.gradients(program.tensors(args, kwargs), program.draw())
            theirs, written = torch_states(), [buffer.detach().clone() for buffer in self._buffers]
        except Exception as error:  # what an operator of the graph raises has no common base
            return f"the graph fails ({type(error).__name__}: {' '.join(str(error).split())[:150]})"
        finally:
            restore(self._buffers, buffers)
            put_torch_states(ends)
        if not all(torch.equal(a, b) for a, b in zip(ends, theirs, strict=True)):
            return "the graph draws other random numbers than the stock loss"
        if run.finite and not bool(torch.isfinite(loss)):
            return CHECKS_FAIL
        stock = torch.as_tensor(run.loss, dtype=loss.dtype, device=loss.device).detach().reshape(())
        reference = [stock, *(gradient for gradient in expected if gradient is not None)]
        floors = [0.0, *[rounding_of(reference[1:])] * len(gradients)]
        reason = disagreement([loss, *gradients], reference, floors)
        if reason is not None:
            return f"the graph disagrees with the stock loss at the same noise ({reason})"
        reason = disagreement(written, buffers)
        return None if reason is None else f"the graph changes buffers otherwise than the stock loss ({reason})"


def reference_step(graph: Graph, slots: Sequence[Slot], clip_norm: float | None) -> Callable[..., list[Tensor]]:
    """The graph's gradients, followed by the optimizers' own steps: what a compiled whole step is compared with.

    Args:
        graph: of loss and gradient.
        slots: the optimizer of each leaf that is used.
        clip_norm: see `vae_pyro.svi.compiled_svi.CompiledSVI`.

    Returns:
        A function with the inputs and outputs of `vae_pyro.svi.step_graphs.step_graph`. The optimizers step on copies
        of their parameters, and the results are written into the inputs.
    """

    def step(*inputs: Tensor) -> list[Tensor]:
        first = graph.num_leaves
        second = first + sum(len(slot.names) for slot in slots)
        loss, metrics, gradients = graph.split(graph.module(*inputs[:first], *inputs[second + 1 :]))
        memo: dict[int, Any] = {}
        optimizers = [copy.deepcopy(slot.optimizer, memo) for slot in slots]
        copies = [memo[id(slot.parameter)] for slot in slots]
        given = iter(inputs[first:second])
        for slot, optimizer, parameter, gradient in zip(slots, optimizers, copies, gradients, strict=True):
            parameter.grad = gradient.clone()
            for name in slot.names:
                optimizer.state[parameter][name].copy_(next(given))
        values = [loss, *metrics.values()]
        if clip_norm is not None:
            values.append(torch.nn.utils.clip_grad_norm_(copies, clip_norm))
        for optimizer in {id(optimizer): optimizer for optimizer in optimizers}.values():
            optimizer.step()
        for leaf, copied in zip(only(inputs[:first], graph.used), copies, strict=True):
            leaf.copy_(copied)
        moved = [
            optimizer.state[parameter][name]
            for slot, optimizer, parameter in zip(slots, optimizers, copies, strict=True)
            for name in slot.names
        ]
        for state, value in zip(inputs[first:second], moved, strict=True):
            state.copy_(value)
        return values

    return step
