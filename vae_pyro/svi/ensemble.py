"""An ensemble: the same programs with parameters, noise and optimizer state for each member, stepped at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError
from vae_pyro.svi.forms import WholeForm
from vae_pyro.svi.inference import Inference, generators_kept, restore
from vae_pyro.svi.optimizer_state import Slot
from vae_pyro.svi.outside.surroundings import Surroundings
from vae_pyro.svi.program import Program
from vae_pyro.svi.stock import StockOptimizer
from vae_pyro.svi.tracer import Tracer


class Ensemble:
    """Parameters, generators and optimizer state of all members, ``(member, *shape)``.

    Args:
        inference: programs and loss.
        optimizer: the user's, whose rule and options are those of every member.
        size: number of members.
        seeds: of their noise and of parameters that the programs make; ``0, 1, ...`` if not given.
        initialize: called with each seed before its member's parameters are read off the programs.
        own_batches: every tensor among the arguments of a step has the members as its first dimension.

    Attributes:
        generators: of the members' noise, once the programs have been traced.
        slots: where the optimizer's state of all members stands, likewise.

    Raises:
        ValueError: ``size`` is not positive, or there are not as many seeds.
    """

    def __init__(
        self,
        inference: Inference,
        optimizer: StockOptimizer,
        size: int,
        seeds: Sequence[int] | None = None,
        initialize: Callable[[int], Any] | None = None,
        own_batches: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError(f"num_ensemble is at least 1, got {size}")
        self.seeds = list(range(size)) if seeds is None else list(seeds)
        if len(self.seeds) != size:
            raise ValueError(f"num_ensemble={size} requires {size} seeds, got {len(self.seeds)}")
        self.inference, self.optimizer, self.size = inference, optimizer, size
        self.initialize, self.own_batches = initialize, own_batches
        self.generators: list[torch.Generator] = []
        self.slots: list[Slot] = []
        self._named_slots: dict[str, Slot] = {}
        self._names: list[str] = []
        self._stack: list[Tensor] = []
        self._own_constants: dict[int, Tensor] = {}

    @property
    def steps_taken(self) -> Tensor:
        """Steps so far, as the optimizer counts them."""
        return torch.as_tensor(self.slots[0].count if self.slots else 0.0)

    def member(self, number: int) -> dict[str, Tensor]:
        """Unconstrained parameters of one member, by name; views, not copies.

        Raises:
            IndexError: no such member, or the programs have not been traced.
        """
        if not 0 <= number < self.size or not self._stack:
            taken = "" if self._stack else ", and no step has been taken"
            raise IndexError(f"no member {number} of {self.size}{taken}")
        return {name: stack[number] for name, stack in zip(self._names, self._stack, strict=True)}

    def adopt(
        self,
        number: int,
        leaves: Mapping[str, Tensor],
        optimizer: Optimizer,
        generator: torch.Generator | None = None,
    ) -> None:
        """Make the parameters and the optimizer of another program those of a member, by reference.

        The member's values go into the parameters, and the optimizer's state, where it has one, into the member.

        Args:
            number: of the member; the programs have to have been traced.
            leaves: parameters by the names of `member`.
            optimizer: which holds them, of the same kind as this one's.
            generator: of the member's noise from now on; ``None`` keeps its own.

        Raises:
            IndexError: see `member`.
        """
        for name, value in self.member(number).items():
            leaves[name].data = value
        for name, slot in self._named_slots.items():
            held = optimizer.state[leaves[name]]
            for key, stack in slot.state().items():
                if held.get(key) is not None:
                    stack[number].copy_(held[key])
                held[key] = stack[number]
            if isinstance(held.get("step"), Tensor):
                slot.count = held["step"].clone()
            held["step"] = slot.count
        if generator is not None:
            self.generators[number] = generator

    def first_batch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the first member, in whose shapes the programs are traced.

        Raises:
            ValueError: a tensor among the arguments has not the members as its first dimension.
        """
        if not self.own_batches:
            return args, kwargs
        tensors = [item for item in pytree.tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        wrong = [tuple(item.shape) for item in tensors if item.dim() == 0 or len(item) != self.size]
        if wrong:
            raise ValueError(f"own_batches=True requires {self.size} batches in each tensor, got shape {wrong[0]}")
        first: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(
            Tensor, lambda tensor: tensor[0], (args, kwargs)
        )
        return first

    def trace(self, tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Program, Surroundings]:
        """A program of one run, and what it has baked in; generators and buffers stay as they are.

        Raises:
            CaptureError: there is none.
        """
        for _ in range(2):  # a first run may make parameters, and then differs from those that follow
            with generators_kept():
                attempt = tracer.attempt(args, kwargs)
            if attempt.before is not None:
                attempt.before.rewind_tensors()
            self.optimizer.clear(list(attempt.run.leaves.values()))
            if attempt.program is not None and attempt.surroundings is not None:
                return attempt.program, attempt.surroundings
            if attempt.refusal is not None:
                raise CaptureError(attempt.refusal)
        raise CaptureError(str(attempt.later))

    def form_of(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> WholeForm:
        """The step of all members at once.

        Args:
            program: of one run.
            args: arguments of a step of one run.
            kwargs: likewise.

        Raises:
            CaptureError: the program draws from a distribution that depends on the graph, or no rule covers the
                optimizer.
        """
        if program.graph.random_inside:
            inside = ", ".join(sorted(set(program.graph.random_inside)))
            raise CaptureError(f"{inside} draws from a distribution that depends on the graph, which members cannot do")
        if not self._stack:
            self._begin(program, args, kwargs)
        together = program.for_members(self._stack, self.own_batches, self._own_constants)
        return WholeForm.of(together, self.slots, self.optimizer.clip_norm)

    def _begin(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        slots = self.optimizer.slots(program.used)
        if slots is None:
            raise CaptureError(f"no rule for the optimizer {self.optimizer.name} with these options")
        self._stack = self._initial_parameters(program, args, kwargs)
        self._names = list(program.names)
        self.generators = [torch.Generator(self._stack[0].device).manual_seed(seed) for seed in self.seeds]
        stacks = dict(zip(self._names, self._stack, strict=True))
        self._named_slots = {
            name: Slot(slot.optimizer, slot.group, slot.parameter, stacks[name])
            for name, slot in zip(program.used_names, slots, strict=True)
        }
        self.slots = list(self._named_slots.values())

    def _initial_parameters(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Parameters of every member before its first step, stacked; constants that differ between them likewise."""
        leaves, constants = dict(zip(program.names, program.leaves, strict=True)), program.graph.constants
        original = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        members: list[dict[str, Tensor]] = []
        read: list[list[Tensor]] = []
        for seed in self.seeds:
            with generators_kept(), pyro.get_param_store().scope():
                if self.initialize is not None:
                    self.initialize(seed)
                read.append([constant.detach().clone() for constant in constants])
                _seed_generators(seed)
                made = self.inference.find_leaves(args, kwargs)
                members.append({name: made[name].detach().clone() for name in original})
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(original[name])
            restore(constants, read[0])  # what all of them have, once the runs have changed no running statistics
        for constant, *values in zip(constants, *read, strict=True):
            if any(not torch.equal(value, values[0]) for value in values):
                self._own_constants[id(constant)] = torch.stack(values)
        return [torch.stack([member[name] for member in members]) for name in original]


def _seed_generators(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
