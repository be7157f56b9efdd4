"""A captured step as something that runs: operator by operator, compiled by Inductor, or as an ensemble."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation.capture import Graph
from vae_pyro.compilation.inductor import compare_outputs, inductor
from vae_pyro.core.isolation import undisturbed
from vae_pyro.svi.optimizer_rules import Slot

type Metrics = dict[str, Tensor]


class Program:
    """One captured step with what it reads and writes.

    Args:
        graph: see `vae_pyro.compilation.capture.capture`.
        leaves: unconstrained parameters.
        flat: flattened arguments that the graph was captured with.
        members: size of the ensemble; ``None`` for a single run.
        own_batches: each member has a batch of its own, ``(member, *shape of a batch)``.
        own_constants: those of the graph's constants that members have each for themselves, ``(member, *shape)``, by
            the identity of the constant that they stand for.

    Attributes:
        count: steps taken.
        together: whether several processes take the step: gradients and optimizer are two programs then, with a sum
            over the processes between them.
        tried: whether the compiler has been tried.
    """

    def __init__(
        self,
        graph: Graph,
        leaves: list[Tensor],
        flat: Sequence[Any],
        members: int | None = None,
        own_batches: bool = False,
        own_constants: Mapping[int, Tensor] | None = None,
    ) -> None:
        self.graph, self.leaves, self.members = graph, leaves, members
        own = own_constants or {}
        self.constants = [own.get(id(constant), constant) for constant in graph.constants]
        # Which inputs between parameters and noise have the members as their first dimension.
        self._own = [own_batches] * graph.num_batch + [id(constant) in own for constant in graph.constants]
        self._positions = [number for number, item in enumerate(flat) if isinstance(item, Tensor)]
        self._plain = len(self._positions) == len(flat)
        if members is None:
            self._noise = [noise.empty() for noise in graph.noise]
        else:
            self._noise = [noise.empty().expand(members, *noise.shape).clone() for noise in graph.noise]
        self.count = 0
        self.tried = False
        self._gradient: Callable[..., Any] = graph.module
        self._step: Callable[..., Any] | None = None
        self.together = False
        self._boxed = False
        self._slots: list[Slot] = []
        self._clip_norm: float | None = None
        self._states: list[Tensor] = []
        self._counts: Tensor | None = None
        self._first_count: Any = None
        self._fixed: list[tuple[Slot, tuple[Any, ...]]] = []
        self._figures: list[str] = graph.metrics

    @property
    def used(self) -> list[Tensor]:
        """Leaves that the loss depends on, in the order of the gradients."""
        return [leaf for leaf, used in zip(self.leaves, self.graph.used, strict=True) if used]

    @property
    def whole(self) -> bool:
        """Whether the optimizer is part of the compiled program."""
        return self._step is not None

    # --- what goes in ---------------------------------------------------------------------------------------------

    def tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors among the arguments, in the order of the graph's inputs."""
        if self._plain and not kwargs and len(args) == len(self._positions):
            return list(args)
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        return [flat[number] for number in self._positions]

    def draw(self, generators: Sequence[torch.Generator] | None = None) -> list[Tensor]:
        """Noise of the next step in the order of the stock step, from torch's generator, or from each member's own."""
        for noise, out in zip(self.graph.noise, self._noise, strict=True):
            if generators is None:
                noise.fill(out)
        for number, generator in enumerate(generators or ()):
            for noise, out in zip(self.graph.noise, self._noise, strict=True):
                noise.fill(out[number], generator)
        return self._noise

    # --- running --------------------------------------------------------------------------------------------------

    def gradients(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> tuple[Tensor, Metrics, list[Tensor]]:
        """Loss, metrics and gradients of the leaves that are used."""
        inputs = [*self.leaves, *tensors, *self.constants, *noise]
        with torch.no_grad():
            return self.graph.split(self._gradient(inputs) if self._boxed else self._gradient(*inputs))

    def step(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> tuple[Tensor, Metrics]:
        """A whole step: parameters and the optimizer's state change in place."""
        rates = self.next_rates()[0]
        self.count_up()
        return self.step_at(rates, tensors, noise)

    def move(self, summed: Sequence[Tensor]) -> tuple[Tensor, Metrics]:
        """The optimizer's part of a step of several processes, in place.

        Args:
            summed: loss, metrics and gradients in the order of `gradients`, each a sum over the processes.
        """
        assert self._step is not None
        rates = self.next_rates()[0]
        self.count_up()
        with torch.no_grad():
            outputs = self._step([*self.leaves, *self._states, rates, *summed])
        return outputs[0], dict(zip(self._figures, outputs[1:], strict=True))

    def step_at(self, rates: Tensor, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> tuple[Tensor, Metrics]:
        """As `step`, with the optimizer's numbers given and no step counted."""
        assert self._step is not None
        with torch.no_grad():
            outputs = self._step([*self.leaves, *self._states, rates, *tensors, *self.constants, *noise])
        return outputs[0], dict(zip(self._figures, outputs[1:], strict=True))

    def next_rates(self, steps: int = 1) -> Tensor:
        """The optimizer's numbers in each of the next steps, ``(steps, numbers)``."""
        self._bind()
        start = int(self._slots[0].count)  # every parameter of a program moves at every step
        groups = [(slot.update, dict(slot.group)) for slot, _ in self._fixed]
        rows: list[list[float]] = []
        for step in range(start + 1, start + steps + 1):
            rows.append([])
            for update, group in groups:
                rows[-1] += update.rates(group, step)
                update.passed(group)
        return torch.tensor(rows, dtype=self.leaves[0].dtype, device=self.leaves[0].device)

    def count_up(self, steps: int = 1) -> None:
        """Tell the optimizer that steps are taken."""
        if self._counts is not None:
            self._counts += steps
        else:
            for slot in self._slots:
                slot.count += steps
        for slot, _ in self._fixed:
            for _step in range(steps):
                slot.update.passed(slot.group)

    def _bind(self) -> None:
        """Find the optimizer's state tensors, which are others after it has been loaded.

        The counts are others also when a program of another shape has stepped: each gathers them for itself.
        """
        counted_here = self._counts is None or self._slots[0].count is self._first_count
        if self._states and self._slots[-1].holds(self._states[-1]) and counted_here:
            return
        self._states = [tensor for slot in self._slots for tensor in slot.state().values()]
        counted = [slot for slot in self._slots if isinstance(slot.count, Tensor)]
        self._counts = torch.stack([slot.count for slot in counted]) if counted else None
        for number, slot in enumerate(counted):  # views of one tensor, which one addition counts up
            assert self._counts is not None
            slot.count = self._counts[number]
        self._first_count = self._slots[0].count

    @property
    def stale(self) -> bool:
        """Whether options of the optimizer have changed that the program has baked in."""
        return any(slot.fixed != fixed for slot, fixed in self._fixed)

    # --- compiling ------------------------------------------------------------------------------------------------

    def take(self, slots: list[Slot], clip_norm: float | None, *, together: bool = False) -> None:
        """Put the optimizer into the program.

        Args:
            slots: the optimizer of each leaf that is used.
            clip_norm: see `CompiledSVI`.
            together: see the attribute.
        """
        self._slots, self._clip_norm, self.together = slots, clip_norm, together
        self._figures = [*self.graph.metrics, *(() if clip_norm is None else ("gradient_norm",))]
        self._fixed = list({id(slot.group): (slot, slot.fixed) for slot in slots}.values())
        if together:
            self._graph = move_graph(self.graph, slots, clip_norm)
        else:
            self._graph = step_graph(self.graph, slots, clip_norm, self.members, self._own)
        self._step = lambda inputs: self._graph(*inputs)

    def compile(self, tensors: list[Tensor], noise: list[Tensor]) -> None:
        """Compile, and compare one step on copies with the graph's.

        Args:
            tensors: a batch.
            noise: of a step.

        Raises:
            CompileError: the compiler failed, or its result disagrees. The program runs as before.
        """
        self.tried = True
        rest = [*tensors, *self.constants, *noise]
        if self._step is None or self.together:
            compiled = inductor(self.graph.module)
            compare_outputs(compiled, self.graph.module, [*self.leaves, *rest])
            gradients = self._gradient([*self.leaves, *rest]) if self._boxed else self._gradient(*self.leaves, *rest)
            self._gradient, self._boxed = compiled, True
            rest = list(gradients)
        if self._step is not None:
            self._bind()
            compiled = inductor(self._graph)
            reference = self._graph if self.members is not None or self.together else self._reference
            # From a state of zeros, Adam's first step is the sign of the gradient, rounding included; from these it
            # is smooth in everything that it reads.
            names = [name for slot in self._slots for name in slot.names]
            states = [
                torch.full_like(state, 1.0 if "sq" in name else 0.5, requires_grad=False)
                for name, state in zip(names, self._states, strict=True)
            ]
            compare_outputs(compiled, reference, [*self.leaves, *states, self.next_rates()[0], *rest])
            self._step = compiled

    def _reference(self, *inputs: Tensor) -> list[Tensor]:
        """The graph's gradients, and the optimizers' own steps on copies of them."""
        first, second = len(self.leaves), len(self.leaves) + len(self._states)
        loss, metrics, gradients = self.graph.split(self.graph.module(*inputs[:first], *inputs[second + 1 :]))
        memo: dict[int, Any] = {}
        optimizers = [copy.deepcopy(slot.optimizer, memo) for slot in self._slots]
        copies = [memo[id(slot.parameter)] for slot in self._slots]
        given = iter(inputs[first:second])
        for slot, optimizer, parameter, gradient in zip(self._slots, optimizers, copies, gradients, strict=True):
            parameter.grad = gradient.clone()
            for name in slot.names:
                optimizer.state[parameter][name].copy_(next(given))
        figures = [loss, *metrics.values()]
        if self._clip_norm is not None:
            figures.append(torch.nn.utils.clip_grad_norm_(copies, self._clip_norm))
        for optimizer in {id(optimizer): optimizer for optimizer in optimizers}.values():
            optimizer.step()
        for leaf, copied in zip(_only(inputs[:first], self.graph.used), copies, strict=True):
            leaf.copy_(copied)
        moved = [
            optimizer.state[parameter][name]
            for slot, optimizer, parameter in zip(self._slots, optimizers, copies, strict=True)
            for name in slot.names
        ]
        for state, value in zip(inputs[first:second], moved, strict=True):
            state.copy_(value)
        return figures


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
        clip_norm: see `CompiledSVI`.
        members: size of the ensemble; parameters, states and noise then have it as their first dimension.
        own: for each tensor of the batch and each constant, whether it has so as well.

    Returns:
        ``(*leaves, *states, rates, *batch, *constants, *noise) -> (loss, *metrics)``, with the norm of the gradient
        after the metrics where it is clipped. It writes to leaves and states, and leaves them as they are where the
        loss, or that norm, is not finite.
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
        figures = [leaves[0].new_empty(()) for _ in range(1 + len(graph.metrics))]
        gradients = [torch.empty_like(leaf) for leaf in _only(leaves, graph.used)]
    count = len(leaves) + len(states) + 1

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        return _moved(graph, slots, clip_norm, flat[:count], *graph.split(flat[count:]))

    return _written(step, graph, clip_norm, [*leaves, *states, rates, *figures, *gradients])


def _optimizer_inputs(graph: Graph, slots: list[Slot], leaves: list[Any]) -> tuple[list[Tensor], Tensor]:
    with leaves[0].fake_mode:  # each state is a tensor of its own: the tracer tells inputs apart by identity
        used = _only(leaves, graph.used)
        states = [torch.empty_like(leaf) for leaf, slot in zip(used, slots, strict=True) for _ in slot.names]
        groups = {id(slot.group): slot for slot in slots}
        return states, leaves[0].new_empty(sum(slot.update.scalars for slot in groups.values()))


def _moved(
    graph: Graph,
    slots: list[Slot],
    clip_norm: float | None,
    held: Sequence[Tensor],
    loss: Tensor,
    metrics: Metrics,
    gradients: list[Tensor],
) -> tuple[Tensor, ...]:
    """Figures, then new leaves and states; ``held`` are the old ones and, last, the optimizer's numbers."""
    fine = torch.isfinite(loss)
    figures = [loss, *metrics.values()]
    if clip_norm is not None:
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        fine = fine & torch.isfinite(norm)
        share = (clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ has it
        gradients = [gradient * share for gradient in gradients]
        figures.append(norm)
    first = len(graph.used)
    old, numbers = iter(held[first:-1]), iter(held[-1].unbind())
    groups = {id(slot.group): slot for slot in slots}
    rates = {at: tuple(next(numbers) for _ in range(slot.update.scalars)) for at, slot in groups.items()}
    new_leaves, new_states = [], []
    for slot, leaf, gradient in zip(slots, _only(held[:first], graph.used), gradients, strict=True):
        state = {name: next(old) for name in slot.names}
        new, after = slot.update.apply(slot.group, rates[id(slot.group)], leaf, gradient, state)
        new_leaves.append(torch.where(fine, new, leaf))
        new_states += [torch.where(fine, after[name], state[name]) for name in slot.names]
    return (*figures, *new_leaves, *new_states)


def _written(
    step: Callable[..., tuple[Tensor, ...]],
    graph: Graph,
    clip_norm: float | None,
    inputs: list[Any],
) -> fx.GraphModule:
    """Trace a step that gives figures, leaves and states as one that writes the latter into its inputs."""
    with undisturbed():
        from torch._inductor.decomposition import select_decomp_table

    figures = 1 + len(graph.metrics) + (clip_norm is not None)

    def write(*flat: Tensor) -> tuple[Tensor, ...]:
        outputs = step(*flat)
        num_states = len(outputs) - figures - sum(graph.used)
        first = len(graph.used)
        targets = [*_only(flat[:first], graph.used), *flat[first : first + num_states]]
        for target, value in zip(targets, outputs[figures:], strict=True):
            target.copy_(value)
        return tuple(outputs[:figures])

    with undisturbed():
        return make_fx(write, decomposition_table=select_decomp_table(), tracing_mode="fake")(*inputs)


def _only(items: Sequence[Any], used: Sequence[bool]) -> list[Any]:
    return [item for item, is_used in zip(items, used, strict=True) if is_used]
