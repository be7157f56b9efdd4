"""What programs read beside arguments, parameters and buffers: found once, compared at every step.

A traced program has baked in every Python value that it met: attributes of objects, global and closure variables, the
training mode of modules. `Surroundings` holds each value with the place where it stands. A step whose places hold the
same values can take the traced program; any other cannot.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.svi.outside.places import ABSENT, CELL, NUMBERS, Place, equal, same, same_items, set_entries
from vae_pyro.svi.outside.reach import Reach


class Surroundings:
    """Values that programs can reach.

    Args:
        roots: the programs, the loss and what else is called, by the names that messages give them.
        numbers: labels of places whose numbers are inputs of the program, and may change.

    Attributes:
        bound: places of tensors that are inputs of the program, with the number of each among its constants; another
            tensor of the same shape may stand there.
        places: of values that have to stay the same.
        numbers: places of numbers that may change.

    Raises:
        UnwatchableError: see `vae_pyro.svi.outside.reach.Reach`.
    """

    def __init__(self, roots: Mapping[str, Any], numbers: Iterable[str] = ()) -> None:
        self._reach = reach = Reach(roots)
        lifted = set(numbers)
        self.numbers = [place for place in reach.places if place.label in lifted and place.is_number]
        self.places = [place for place in reach.places if place.label not in lifted or not place.is_number]
        self.bound: list[tuple[Place, int]] = []
        self._collect()

    @property
    def generators(self) -> list[Any]:
        """Random generators that the programs can reach."""
        return self._reach.generators

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Modules that they can reach."""
        return self._reach.modules

    @property
    def tensors(self) -> list[tuple[str, Tensor]]:
        """Tensors that they can reach and that are neither parameters nor buffers, with their labels."""
        return self._reach.tensors

    @property
    def buffers(self) -> list[Tensor]:
        """Buffers of the modules, each once."""
        found = {id(b): b for module in self.modules for b in module._buffers.values() if b is not None}
        return list(found.values())

    def bind_tensors(self, constants: Sequence[Tensor]) -> None:
        """Take the places of a program's constants for inputs."""
        number_of = {id(constant): number for number, constant in enumerate(constants)}
        self.bound = [(place, number_of[id(place.value)]) for place in self.places if id(place.value) in number_of]
        held = {id(place) for place, _ in self.bound}
        self.places = [place for place in self.places if id(place) not in held]
        self._collect()

    def unbind_tensors(self) -> None:
        """Take no other tensors at their places: the constants are a member's own."""
        self.places += [place for place, _ in self.bound]
        self.bound = []
        self._collect()

    def rebind(self, constants: list[Tensor]) -> None:
        """Put the tensors that stand at the places now among a program's constants."""
        for place, number in self.bound:
            constants[number] = place.get()

    def _collect(self) -> None:
        self._entries = [(place.holder, place.key, place.value) for place in self.places if place.key is not CELL]
        self._cells = [place for place in self.places if place.key is CELL]

    def _tensors_hold(self) -> bool:
        """Whether tensors of the same kind stand at the places of constants, one for each constant."""
        found: dict[int, Tensor] = {}
        for place, number in self.bound:
            now = place.get()
            if found.setdefault(number, now) is not now or (now is not place.value and not _is_like(now, place.value)):
                return False
        return True

    # --- comparing ------------------------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Whether everything has its value still."""
        for holder, key, value in self._entries:
            now = holder.get(key, ABSENT)
            if now is not value and not equal(now, value):
                return False
        return (
            all(same(place.get(), place.value) for place in self._cells)
            and all(len(holder) == size for holder, size, _ in self._reach.sizes)
            and all(same_items(held, items) for held, items, _ in self._reach.items)
            and all(tensor.requires_grad is flag for tensor, flag, _ in self._reach.flags)
            and self._tensors_hold()
            and all(isinstance(place.get(), NUMBERS) for place in self.numbers)
            and all(np.array_equal(array, copy, equal_nan=False) for array, copy, _ in self._reach.arrays)
        )

    def changed(self) -> list[str]:
        """Labels of what has another value now."""
        found = [place.label for place in self.places if not same(place.get(), place.value)]
        found += [label for holder, size, label in self._reach.sizes if len(holder) != size]
        found += [label for held, items, label in self._reach.items if not same_items(held, items)]
        found += [label for tensor, flag, label in self._reach.flags if tensor.requires_grad is not flag]
        found += [label for array, copy, label in self._reach.arrays if not np.array_equal(array, copy)]
        return list(dict.fromkeys(found))

    def changed_numbers(self) -> list[str]:
        """Labels of what has another value now, where all of it is floating-point numbers; else nothing."""
        changed = set(self.changed())
        places = [place for place in self.places if place.label in changed]
        only = {place.label for place in places if place.is_number and isinstance(place.get(), NUMBERS)}
        return sorted(changed) if changed == only else []

    def put_back(self) -> None:
        """Give everything the value again that it had, after a run that is to leave no trace."""
        for place in (*self.places, *self.numbers, *(place for place, _ in self.bound)):
            if place.get() is not place.value:
                place.set(place.value)
        for held, copy in self._reach.copies:
            set_entries(held, copy)
        for listed, items, _ in self._reach.items:
            if not same_items(listed, items):
                listed[:] = items
        for holder, size, _ in self._reach.sizes:
            if isinstance(holder, list) and len(holder) > size:
                del holder[size:]


def _is_like(now: Any, value: Tensor) -> bool:
    """Whether a tensor can take the place of another in a program; on a GPU, recorded graphs know it by its address."""
    return (
        type(now) is type(value)
        and now.device.type == "cpu" == value.device.type
        and (now.shape, now.stride(), now.dtype) == (value.shape, value.stride(), value.dtype)
        and not now.requires_grad
    )
