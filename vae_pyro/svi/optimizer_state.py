"""Where the optimizer of a compiled program keeps its state, and the numbers that it takes a step with."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.optim.clipped_adam import ClippedAdam as PyroClippedAdam
from torch import Tensor
from torch.optim import Optimizer

from vae_pyro.svi.optimizer_rules import UPDATES, Group


class Slot:
    """The optimizer of one parameter, and where its state stands.

    Args:
        optimizer: the torch optimizer, of a class that has a rule.
        group: its parameter group that holds the parameter.
        parameter: the leaf.
        stack: parameters of an ensemble, ``(member, *shape of the leaf)``, whose state the optimizer does not hold.
    """

    def __init__(self, optimizer: Optimizer, group: Group, parameter: Tensor, stack: Tensor | None = None) -> None:
        self.optimizer, self.group, self.parameter, self.stack = optimizer, group, parameter, stack
        self.update = UPDATES[type(optimizer)]
        self.names = self.update.slots(group)
        self._own: dict[str, Any] = {}

    @property
    def _store(self) -> dict[str, Any]:
        return self.optimizer.state[self.parameter] if self.stack is None else self._own

    @property
    def _counter(self) -> dict[str, Any]:
        """Where the count of steps stands; torch's SGD keeps none, only whether there is momentum already."""
        return self._store if self.update.counts_steps else self._own

    @property
    def fixed(self) -> tuple[Any, ...]:
        """Options that a program bakes in."""
        return tuple(self.group.get(name) for name in self.update.fixed)

    @property
    def count(self) -> Any:
        """Steps taken, as the optimizer keeps them: a tensor, or a number."""
        return self._counter["step"]

    @count.setter
    def count(self, value: Any) -> None:
        self._counter["step"] = value

    def holds(self, tensor: Tensor) -> bool:
        """Whether the last of the state tensors is still this one."""
        return not self.names or self._store.get(self.names[-1]) is tensor

    def state(self) -> dict[str, Tensor]:
        """State tensors in the shape of the parameter, made as the optimizer makes them where there are none yet."""
        state, like = self._store, self.parameter if self.stack is None else self.stack
        started = any(state.get(name) is not None for name in self.names)
        if "step" not in self._counter:
            on = self.parameter.device if self.group.get("fused") or self.group.get("capturable") else "cpu"
            is_pyro = isinstance(self.optimizer, PyroClippedAdam)
            self._counter["step"] = int(started) if is_pyro else torch.tensor(float(started), device=on)
        for name in self.names:
            if state.get(name) is None:
                state[name] = torch.zeros_like(like, requires_grad=False)
        return {name: state[name] for name in self.names}


def slots_of(optimizer: Any, leaves: list[Tensor]) -> list[Slot] | None:
    """Where the state of each leaf stands; ``None`` where no rule covers the optimizer or its options.

    Args:
        optimizer: a torch optimizer, or a Pyro one that knows the leaves.
        leaves: parameters.
    """
    if isinstance(optimizer, Optimizer):
        found = {id(p): (optimizer, group) for group in optimizer.param_groups for p in group["params"]}
    else:
        if any(optimizer.grad_clip.get(leaf) is not None for leaf in leaves):
            return None
        found = {
            id(p): (single, single.param_groups[0])
            for p, single in optimizer.optim_objs.items()
            if isinstance(single, Optimizer)
        }
    slots = []
    for leaf in leaves:
        single, group = found.get(id(leaf), (None, None))
        if single is None or group is None or type(single) not in UPDATES or not UPDATES[type(single)].supports(group):
            return None
        slots.append(Slot(single, group, leaf))
    return slots


class OptimizerState:
    """The state of all parameters of one program, as the inputs of its compiled step.

    Args:
        slots: the optimizer of each parameter that the loss depends on, in the order of the gradients.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        # One slot for each parameter group, with the options that a program has baked in.
        self._fixed = list({id(slot.group): (slot, slot.fixed) for slot in slots}.values())
        self._tensors: list[Tensor] = []
        self._counts: Tensor | None = None
        self._first_count: Any = None

    @property
    def names(self) -> list[str]:
        """Names of the state tensors, in their order."""
        return [name for slot in self.slots for name in slot.names]

    @property
    def stale(self) -> bool:
        """Whether options of the optimizer have changed that the program has baked in."""
        return any(slot.fixed != fixed for slot, fixed in self._fixed)

    def tensors(self) -> list[Tensor]:
        """The state tensors, which are others after the optimizer has been loaded.

        The counts are others also when a program of another shape has stepped: each gathers them for itself.
        """
        counted_here = self._counts is None or self.slots[0].count is self._first_count
        if self._tensors and self.slots[-1].holds(self._tensors[-1]) and counted_here:
            return self._tensors
        self._tensors = [tensor for slot in self.slots for tensor in slot.state().values()]
        counted = [slot for slot in self.slots if isinstance(slot.count, Tensor)]
        self._counts = torch.stack([slot.count for slot in counted]) if counted else None
        for number, slot in enumerate(counted):  # views of one tensor, which one addition counts up
            assert self._counts is not None
            slot.count = self._counts[number]
        self._first_count = self.slots[0].count
        return self._tensors

    def next_rates(self, like: Tensor, steps: int = 1) -> Tensor:
        """The optimizer's numbers in each of the next steps, ``(steps, numbers)``; type and device of ``like``."""
        self.tensors()
        start = int(self.slots[0].count)  # every parameter of a program moves at every step
        groups = [(slot.update, dict(slot.group)) for slot, _ in self._fixed]
        rows: list[list[float]] = []
        for step in range(start + 1, start + steps + 1):
            rows.append([])
            for update, group in groups:
                rows[-1] += update.rates(group, step)
                update.passed(group)
        return torch.tensor(rows, dtype=like.dtype, device=like.device)

    def count_up(self, steps: int = 1) -> None:
        """Tell the optimizer that steps are taken."""
        if self._counts is not None:
            self._counts += steps
        else:
            for slot in self.slots:
                slot.count += steps
        for slot, _ in self._fixed:
            for _step in range(steps):
                slot.update.passed(slot.group)
