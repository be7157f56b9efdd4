"""The parity gates: what is traced or compiled has to agree with the stock step at the same noise before it is used."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_pyro.compilation.graph import CaptureError, Graph
from vae_pyro.compilation.inductor import disagreement
from vae_pyro.svi.inference import Inference, generators_kept, restore
from vae_pyro.svi.optimizer_state import Slot
from vae_pyro.svi.program import Program
from vae_pyro.svi.step_graphs import only


class TraceLaterError(RuntimeError):
    """This step has to be a stock step; the next one with the same arguments can be traced."""


def require_parity(program: Program, inference: Inference, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Compare loss and gradients of a traced program with those of the stock loss; generators and buffers stay.

    Args:
        program: of one run, not yet compiled.
        inference: that it was traced from.
        args: arguments of a step.
        kwargs: likewise.

    Raises:
        CaptureError: they disagree; the message says in what.
        TraceLaterError: the stock loss is not finite on this batch, so that nothing can be compared with it.
    """
    graph = program.graph
    kept = [constant.clone() for constant in graph.constants]
    with generators_kept():
        value = inference.differentiable_loss(args, kwargs)
        expected = torch.autograd.grad(value, program.leaves, allow_unused=True)
    if not bool(torch.isfinite(value)):
        raise TraceLaterError("the stock loss is not finite on this batch")
    if [gradient is not None for gradient in expected] != graph.used:
        raise CaptureError("the graph and the stock loss depend on different parameters")
    with generators_kept(), torch.no_grad():
        restore(graph.constants, kept)
        loss, _, gradients = program.gradients(program.tensors(args, kwargs), program.draw())
        restore(graph.constants, kept)
    reference = [value.detach(), *(gradient for gradient in expected if gradient is not None)]
    reason = disagreement([loss, *gradients], reference)
    if reason is not None:
        raise CaptureError(f"the graph disagrees with the stock loss at the same noise ({reason})")


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
