"""The graph of loss and gradient, continued by the optimizer, which writes parameters and state in place."""

from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation.graph import Graph
from vae_pyro.compilation.source import Source
from vae_pyro.core.isolation import undisturbed
from vae_pyro.svi.optimizer_state import Slot


def step_graph(
    graph: Graph,
    slots: list[Slot],
    clip_norm: float | None,
    members: int | None = None,
    own: Sequence[bool] = (),
) -> fx.GraphModule:
    """The graph of loss and gradient, continued by the optimizer.

    Args:
        graph: of loss and gradient.
        slots: the optimizer of each leaf that is used.
        clip_norm: largest Euclidean norm of the gradient; ``None`` does not clip.
        members: size of the ensemble; parameters, states and noise then have it as their first dimension.
        own: for each tensor of the batch and each constant, whether it has so as well.

    Returns:
        ``(*leaves, *states, rates, *batch, *constants, *noise) -> (loss, *metrics)``, see `metrics_of`. It writes to
        leaves and states, and leaves them as they are where the loss, or the norm of the gradient, is not finite.
    """
    example = graph.example()
    leaves, middle = example[: graph.num_leaves], example[graph.num_leaves :]
    noise = [middle.pop() for _ in graph.noise][::-1]
    states, rates = _optimizer_inputs(graph, slots, leaves)
    first, second = len(leaves), len(leaves) + len(states)

    def move(*flat: Tensor) -> tuple[Tensor, ...]:
        loss, metrics, gradients = graph.split(graph.module(*flat[:first], *flat[second + 1 :]))
        return _moved(graph, slots, clip_norm, flat[: second + 1], loss, metrics, gradients)

    if members is not None:
        with example[0].fake_mode:
            leaves, states, noise = (
                [tensor.new_empty((members, *tensor.shape)) for tensor in group] for group in (leaves, states, noise)
            )
            middle = [
                tensor.new_empty((members, *tensor.shape)) if own_one else tensor
                for tensor, own_one in zip(middle, own, strict=True)
            ]

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        dims = [0] * second + [None] + [0 if own_one else None for own_one in own] + [0] * len(noise)
        return move(*flat) if members is None else torch.func.vmap(move, in_dims=tuple(dims))(*flat)

    return _written(step, graph, clip_norm, [*leaves, *states, rates, *middle, *noise])


def move_graph(graph: Graph, slots: list[Slot], clip_norm: float | None) -> fx.GraphModule:
    """The optimizer's part alone, on gradients that are given.

    Args:
        graph: of loss and gradient, whose outputs are given.
        slots: see `step_graph`.
        clip_norm: likewise.

    Returns:
        ``(*leaves, *states, rates, loss, *metrics, *gradients) -> (loss, *metrics)``, writing as `step_graph` does.
    """
    leaves = graph.example()[: graph.num_leaves]
    states, rates = _optimizer_inputs(graph, slots, leaves)
    with leaves[0].fake_mode:
        values = [leaves[0].new_empty(()) for _ in range(1 + len(graph.metrics))]
        gradients = [torch.empty_like(leaf) for leaf in only(leaves, graph.used)]
    count = len(leaves) + len(states) + 1

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        return _moved(graph, slots, clip_norm, flat[:count], *graph.split(flat[count:]))

    return _written(step, graph, clip_norm, [*leaves, *states, rates, *values, *gradients])


def step_source(
    graph: Graph,
    slots: list[Slot],
    clip_norm: float | None,
    members: int | None = None,
    own: Sequence[bool] = (),
) -> Source:
    """What `step_graph` is made of, by which its compiled program is found without tracing it."""
    parts = ["step", _facts(graph, slots, clip_norm), members, list(own)]
    return _source(lambda: step_graph(graph, slots, clip_norm, members, own), graph, slots, parts)


def move_source(graph: Graph, slots: list[Slot], clip_norm: float | None) -> Source:
    """What `move_graph` is made of, likewise."""
    parts = ["move", _facts(graph, slots, clip_norm)]
    return _source(lambda: move_graph(graph, slots, clip_norm), graph, slots, parts)


def _facts(graph: Graph, slots: list[Slot], clip_norm: float | None) -> list[Any]:
    """Everything that the optimizer's part of a graph depends on, beside the code of its rules."""
    groups = list(dict.fromkeys(id(slot.group) for slot in slots))
    rules = [
        [slot.update.__qualname__, groups.index(id(slot.group)), list(slot.names), slot.update.scalars, slot.fixed]
        for slot in slots
    ]
    return [graph.num_leaves, graph.num_batch, len(graph.noise), len(graph.metrics), graph.used, rules, clip_norm]


def _source(make: Callable[[], fx.GraphModule], graph: Graph, slots: list[Slot], parts: list[Any]) -> Source:
    rules = {rule for slot in slots for rule in slot.update.__mro__ if rule is not object and rule is not ABC}
    return Source(make, graph.module, parts, [step_graph, *rules])


def metrics_of(graph: Graph, clip_norm: float | None) -> list[str]:
    """Names of what a whole step gives beside the loss: its metrics, and the norm of a gradient that is clipped."""
    return [*graph.metrics, *(() if clip_norm is None else ("gradient_norm",))]


def only(items: Sequence[Any], used: Sequence[bool]) -> list[Any]:
    """Those of the items that are used."""
    return [item for item, is_used in zip(items, used, strict=True) if is_used]


def _optimizer_inputs(graph: Graph, slots: list[Slot], leaves: list[Any]) -> tuple[list[Tensor], Tensor]:
    with leaves[0].fake_mode:  # each state is a tensor of its own: the tracer distinguishes inputs by identity
        used = only(leaves, graph.used)
        states = [torch.empty_like(leaf) for leaf, slot in zip(used, slots, strict=True) for _ in slot.names]
        groups = {id(slot.group): slot for slot in slots}
        return states, leaves[0].new_empty(sum(slot.update.scalars for slot in groups.values()))


def _moved(
    graph: Graph,
    slots: list[Slot],
    clip_norm: float | None,
    held: Sequence[Tensor],
    loss: Tensor,
    metrics: dict[str, Tensor],
    gradients: list[Tensor],
) -> tuple[Tensor, ...]:
    """Loss and metrics, then new leaves and states; ``held`` are the old ones and, last, the optimizer's numbers."""
    finite = torch.isfinite(loss)
    values = [loss, *metrics.values()]
    if clip_norm is not None:
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        finite = finite & torch.isfinite(norm)
        share = (clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ has it
        gradients = [gradient * share for gradient in gradients]
        values.append(norm)
    first = len(graph.used)
    old, numbers = iter(held[first:-1]), iter(held[-1].unbind())
    groups = {id(slot.group): slot for slot in slots}
    rates = {at: tuple(next(numbers) for _ in range(slot.update.scalars)) for at, slot in groups.items()}
    new_leaves, new_states = [], []
    for slot, leaf, gradient in zip(slots, only(held[:first], graph.used), gradients, strict=True):
        state = {name: next(old) for name in slot.names}
        new, after = slot.update.apply(slot.group, rates[id(slot.group)], leaf, gradient, state)
        new_leaves.append(torch.where(finite, new, leaf))
        new_states += [torch.where(finite, after[name], state[name]) for name in slot.names]
    return (*values, *new_leaves, *new_states)


def _written(
    step: Callable[..., tuple[Tensor, ...]],
    graph: Graph,
    clip_norm: float | None,
    inputs: list[Any],
) -> fx.GraphModule:
    """Trace a step that gives values, leaves and states as one that writes the latter two into its inputs."""
    with undisturbed():
        from torch._inductor.decomposition import select_decomp_table

    count = 1 + len(metrics_of(graph, clip_norm))

    def write(*flat: Tensor) -> tuple[Tensor, ...]:
        outputs = step(*flat)
        num_states = len(outputs) - count - sum(graph.used)
        first = len(graph.used)
        targets = [*only(flat[:first], graph.used), *flat[first : first + num_states]]
        for target, value in zip(targets, outputs[count:], strict=True):
            target.copy_(value)
        return tuple(outputs[:count])

    with undisturbed():
        return make_fx(write, decomposition_table=select_decomp_table(), tracing_mode="fake")(*inputs)
