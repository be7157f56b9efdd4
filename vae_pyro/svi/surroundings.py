"""What programs read beside arguments, parameters and buffers: found once, compared at every step.

A traced program has baked in every Python value that it met: attributes of objects, global and closure variables, the
training mode of modules. `Surroundings` walks over everything that the programs can reach from Python, without running
them, and holds each value with the place where it stands. A step whose places hold the same values can take the traced
program; any other cannot.
"""

import io
import math
import random
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.svi.code_names import is_library, names_of, names_of_library

MAX_PLACES = 5_000
"""Places beyond which comparing them at every step would cost more than it saves."""
_MAX_ITEMS = 256  # of a container: beyond it, a container is known by its identity and length
_MAX_ARRAY = 4_096  # elements of an array that are compared at every step
_ABSENT: Any = object()
CELL: Any = object()
_ATOMS = (bool, int, float, complex, str, bytes, type(None), Enum, torch.dtype, torch.device, torch.Size)
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
# What nn.Module and PyroModule keep for themselves; parameters, buffers, children and hooks are looked at on their own.
_MODULE_INTERNALS = frozenset(vars(torch.nn.Module())) - {"training"}
_MODULE_TABLES = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks")


class UnwatchableError(RuntimeError):
    """The programs read something whose changes cannot be seen; the message says what."""


@dataclass(frozen=True)
class Place:
    """Where a value stands: an entry of a dictionary, or a cell of a closure.

    Attributes:
        holder: the dictionary (of globals, of an object's attributes), or the cell.
        key: of the dictionary; `CELL` for a cell.
        label: for messages, such as ``model.beta``.
        value: that was found there.
    """

    holder: Any
    key: Any
    label: str
    value: Any

    def get(self) -> Any:
        """What stands there now."""
        if self.key is CELL:
            try:
                return self.holder.cell_contents
            except ValueError:  # an empty cell
                return _ABSENT
        return self.holder.get(self.key, _ABSENT)

    def set(self, value: Any) -> None:
        """Put a value there."""
        if self.key is CELL:
            self.holder.cell_contents = value
        elif isinstance(self.holder, types.MappingProxyType):
            return  # an attribute of a class: nothing is written there
        elif value is _ABSENT:
            self.holder.pop(self.key, None)
        else:
            self.holder[self.key] = value

    @property
    def is_number(self) -> bool:
        """Whether a floating-point number stands there, which a program can take as an input."""
        return type(self.value) is float and not isinstance(self.holder, types.MappingProxyType)


class Surroundings:
    """Values that programs can reach.

    Args:
        roots: the programs, the loss and what else is called, by the names that messages give them.
        numbers: labels of places whose numbers are inputs of the program, and may change.

    Attributes:
        generators: random generators that the programs can reach.
        modules: modules that they can reach.
        tensors: tensors that they can reach and that are neither parameters nor buffers.

    Raises:
        UnwatchableError: there is an iterator, which gives another value at every step, or there is too much.
    """

    def __init__(self, roots: Mapping[str, Any], numbers: Iterable[str] = ()) -> None:
        self.generators: list[Any] = []
        self.modules: list[torch.nn.Module] = []
        self.tensors: list[tuple[str, Tensor]] = []
        self._roots = list(roots.values())  # keeps alive what is known by its identity
        self._seen: dict[int, Any] = {}
        self._names: set[str] = set()
        self._made_up = False
        self._unread: dict[str, list[Callable[[], None]]] = {}
        self._iterators: list[str] = []
        self._sizes: list[tuple[Any, int, str]] = []
        self._copies: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._items: list[tuple[list[Any], tuple[Any, ...], str]] = []
        self._arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]] = []
        self._flags: list[tuple[Tensor, bool, str]] = []
        self.places: list[Place] = []
        for label, root in roots.items():
            self._visit(root, label)
        if self._iterators:
            raise UnwatchableError(f"{self._iterators[0]} is an iterator, which gives another value at every step")
        lifted = set(numbers)
        self.numbers = [place for place in self.places if place.label in lifted and place.is_number]
        self.places = [place for place in self.places if place.label not in lifted or not place.is_number]
        self._entries = [(place.holder, place.key, place.value) for place in self.places if place.key is not CELL]
        self._cells = [(place.holder, place.value) for place in self.places if place.key is CELL]

    @property
    def buffers(self) -> list[Tensor]:
        """Buffers of the modules, each once."""
        found = {id(b): b for module in self.modules for b in module._buffers.values() if b is not None}
        return list(found.values())

    # --- comparing ------------------------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Whether everything has its value still."""
        for holder, key, value in self._entries:
            now = holder.get(key, _ABSENT)
            if now is not value and not _equal(now, value):
                return False
        for cell, value in self._cells:
            try:
                now = cell.cell_contents
            except ValueError:
                return value is _ABSENT
            if now is not value and not _equal(now, value):
                return False
        return (
            all(len(holder) == size for holder, size, _ in self._sizes)
            and all(_same_items(held, items) for held, items, _ in self._items)
            and all(tensor.requires_grad is flag for tensor, flag, _ in self._flags)
            and all(type(place.get()) is float for place in self.numbers)
            and all(np.array_equal(array, copy, equal_nan=False) for array, copy, _ in self._arrays)
        )

    def changed(self) -> list[str]:
        """Labels of what has another value now."""
        found = [place.label for place in self.places if not _same(place.get(), place.value)]
        found += [label for holder, size, label in self._sizes if len(holder) != size]
        found += [label for held, items, label in self._items if not _same_items(held, items)]
        found += [label for tensor, flag, label in self._flags if tensor.requires_grad is not flag]
        found += [label for array, copy, label in self._arrays if not np.array_equal(array, copy)]
        return list(dict.fromkeys(found))

    def changed_numbers(self) -> list[str]:
        """Labels of what has another value now, where all of it is floating-point numbers; else nothing."""
        changed = set(self.changed())
        places = [place for place in self.places if place.label in changed]
        only = {place.label for place in places if place.is_number and type(place.get()) is float}
        return sorted(changed) if changed == only else []

    def put_back(self) -> None:
        """Give everything the value again that it had, after a run that is to leave no trace."""
        for place in (*self.places, *self.numbers):
            if place.get() is not place.value:
                place.set(place.value)
        for held, copy in self._copies:
            if len(held) != len(copy) or any(held.get(key, _ABSENT) is not value for key, value in copy.items()):
                held.clear()
                held.update(copy)
        for listed, items, _ in self._items:
            if not _same_items(listed, items):
                listed[:] = items
        for holder, size, _ in self._sizes:
            if isinstance(holder, list) and len(holder) > size:
                del holder[size:]

    # --- walking --------------------------------------------------------------------------------------------------

    def _visit(self, value: Any, label: str) -> None:
        if isinstance(value, _ATOMS) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            self._flags.append((value, value.requires_grad, f"{label}.requires_grad"))
        elif isinstance(value, _GENERATORS):
            self.generators.append(value)
        elif isinstance(value, np.ndarray):
            self._visit_array(value, label)
        elif isinstance(value, types.FunctionType):
            self._visit_function(value, label)
        elif isinstance(value, types.MethodType):
            self._visit(value.__self__, label.rpartition(".")[0] or label)
            self._visit(value.__func__, label)
        elif isinstance(value, partial):
            for part in (value.func, value.args, value.keywords):
                self._visit(part, label)
        elif isinstance(value, type):
            self._visit_class(value, value.__name__)
        elif isinstance(value, list | tuple):
            self._visit_items(value, label)
        elif isinstance(value, dict):
            self._visit_entries(value, label)
        elif isinstance(value, types.ModuleType | types.BuiltinFunctionType | types.MethodWrapperType):
            return
        elif isinstance(value, set | frozenset | deque):
            self._sizes.append((value, len(value), label))
        elif _is_iterator(value):
            self._iterators.append(label)
        else:
            self._visit_object(value, label)

    def _hold(self, holder: Any, key: Any, label: str) -> None:
        """Hold what stands at a place, and go on from there."""
        value = Place(holder, key, label, None).get()
        self.places.append(Place(holder, key, label, value))
        if len(self.places) > MAX_PLACES:
            raise UnwatchableError(f"they can reach more than {MAX_PLACES} Python values")
        if isinstance(value, Tensor) and id(value) not in self._seen:
            self.tensors.append((label, value))
        if value is not _ABSENT:
            self._visit(value, label)

    def _when_read(self, name: str, go_on: Callable[[], None]) -> None:
        """Go on once some code is found that reads an attribute of this name; without any, it is out of reach."""
        if self._made_up or name in self._names:
            go_on()
        else:
            self._unread.setdefault(name, []).append(go_on)

    def _read(self, names: Iterable[str], made_up: bool = False) -> None:
        self._made_up = self._made_up or made_up
        self._names.update(names)
        for name in list(self._unread) if self._made_up else [name for name in names if name in self._unread]:
            for go_on in self._unread.pop(name, []):
                go_on()

    def _visit_array(self, array: np.ndarray[Any, Any], label: str) -> None:
        part = array if array.size <= _MAX_ARRAY else array.reshape(-1)[:: array.size // _MAX_ARRAY]
        if array.dtype.kind in "biufcSU":
            self._arrays.append((part, part.copy(), label))

    def _visit_items(self, held: list[Any] | tuple[Any, ...], label: str) -> None:
        if len(held) > _MAX_ITEMS:
            self._sizes.append((held, len(held), label))
            return
        if isinstance(held, list):
            self._items.append((held, tuple(held), label))
        for number, item in enumerate(held):
            self._visit(item, f"{label}[{number}]")

    def _visit_entries(self, held: dict[Any, Any], label: str) -> None:
        self._sizes.append((held, len(held), label))
        if len(held) <= _MAX_ITEMS:
            self._copies.append((held, dict(held)))
            for key in list(held):
                self._hold(held, key, f"{label}[{key!r}]")

    def _visit_function(self, function: types.FunctionType, label: str) -> None:
        if is_library(function.__module__):
            return
        read = names_of(function.__code__)
        self._read(read.attributes, read.made_up)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._hold(cell, CELL, f"closure variable {name!r}")
        variables = function.__globals__
        for name in sorted(read.variables & variables.keys()):
            value = variables[name]
            self._hold(variables, name, f"global variable {name!r}")
            if isinstance(value, types.ModuleType) and not is_library(value.__name__):
                for attribute in sorted(read.attributes & vars(value).keys()):
                    self._hold(vars(value), attribute, f"{name}.{attribute}")
        for part in (function.__defaults__, function.__kwdefaults__):
            self._visit(part, f"{label} (defaults)")
        for attribute in list(vars(function)):
            self._hold(vars(function), attribute, f"{label}.{attribute}")

    def _visit_class(self, cls: type, label: str) -> None:
        library = [base for base in cls.__mro__ if base is not object and is_library(base.__module__)]
        for base in library:
            self._read(names_of_library(base))
        if is_library(cls.__module__):
            return
        for base in cls.__mro__:
            if base is object or base in library:
                continue
            for name, value in list(vars(base).items()):
                held = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                at = f"{label}.{name}"
                if isinstance(held, types.FunctionType):
                    if name.startswith("__") or any(name in vars(above) for above in library):
                        self._visit(held, at)  # Python or the library calls it
                    else:
                        self._when_read(name, partial(self._visit, held, at))
                elif not name.startswith("__") and not callable(held):
                    self._when_read(name, partial(self._hold, vars(base), name, at))

    def _visit_object(self, value: Any, label: str) -> None:
        cls = type(value)
        self._visit(cls, cls.__name__)
        attributes = getattr(value, "__dict__", None)
        is_module = isinstance(value, torch.nn.Module)
        if isinstance(value, torch.jit.ScriptModule):
            raise UnwatchableError(f"{label} is a scripted module")
        if is_module:
            self._visit_module(value, label)
        if not isinstance(attributes, dict):
            return
        self._copies.append((attributes, dict(attributes)))
        library = is_library(cls.__module__)
        for name in list(attributes):
            if name.startswith("_pyro") or (is_module and name in _MODULE_INTERNALS):
                continue
            if library and (name.startswith("_") or not isinstance(attributes[name], (*_ATOMS, Tensor))):
                continue  # caches and working memory of a library; its options are plain values
            if name == "metrics" and isinstance(attributes[name], dict):
                continue  # of a loss: what it gives back of its last step
            if library:
                self._hold(attributes, name, f"{label}.{name}")
            else:
                self._when_read(name, partial(self._hold, attributes, name, f"{label}.{name}"))

    def _visit_module(self, module: torch.nn.Module, label: str) -> None:
        self.modules.append(module)
        for table in _MODULE_TABLES:
            held: dict[Any, Any] = vars(module)[table]
            self._sizes.append((held, len(held), f"{label}.{table}"))
            self._copies.append((held, dict(held)))
            for key, entry in held.items():
                self.places.append(Place(held, key, f"{label}.{key}", entry))
                self._visit(entry, f"{label}.{key}")


def _is_iterator(value: Any) -> bool:
    return isinstance(value, Iterator) and not isinstance(value, io.IOBase)


def _equal(now: Any, value: Any) -> bool:
    """Whether two plain values are the same; everything else is known by its identity."""
    if type(now) is not type(value) or not isinstance(value, _ATOMS):
        return False
    same: bool = now == value or (isinstance(value, float) and math.isnan(now) and math.isnan(value))
    return same


def _same(now: Any, value: Any) -> bool:
    return now is value or _equal(now, value)


def _same_items(held: list[Any], items: tuple[Any, ...]) -> bool:
    return len(held) == len(items) and all(a is b or _equal(a, b) for a, b in zip(held, items, strict=True))


@dataclass
class GeneratorStates:
    """States of random generators, to find out which a run has moved and to put them back.

    Attributes:
        reachable: generators beside the global ones.
    """

    reachable: list[Any]

    def __post_init__(self) -> None:
        self._torch = torch_states()
        self._numpy = np.random.get_state()  # noqa: NPY002 (the global one is what programs draw from)
        self._python = random.getstate()
        self._own = [_state_of(generator) for generator in self.reachable]

    def put_back(self) -> None:
        """Set every generator to its state."""
        put_torch_states(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)
        for generator, state in zip(self.reachable, self._own, strict=True):
            _set_state(generator, state)

    def put_back_torch(self) -> None:
        """Set torch's default generators to their states."""
        put_torch_states(self._torch)

    def moved(self) -> list[str]:
        """Which have moved, of those that a traced program cannot draw from."""
        found = []
        if not _same_state(np.random.get_state(), self._numpy):  # noqa: NPY002
            found.append("NumPy's generator")
        if random.getstate() != self._python:
            found.append("Python's generator")
        for generator, state in zip(self.reachable, self._own, strict=True):
            if not _same_state(_state_of(generator), state):
                found.append(f"a {type(generator).__module__}.{type(generator).__name__} of its own")
        return found


def torch_states() -> list[Tensor]:
    """States of torch's default generators, the CPU's first."""
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.default_generator.get_state(), *on_cuda]


def put_torch_states(states: list[Tensor]) -> None:
    """Set torch's default generators to such states."""
    torch.default_generator.set_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


_STATES: list[tuple[type, Callable[[Any], Any], Callable[[Any, Any], Any]]] = [
    (np.random.Generator, lambda g: g.bit_generator.state, lambda g, s: setattr(g.bit_generator, "state", s)),
    (np.random.RandomState, lambda g: g.get_state(), lambda g, s: g.set_state(s)),
    (random.Random, lambda g: g.getstate(), lambda g, s: g.setstate(s)),
    (torch.Generator, lambda g: g.get_state(), lambda g, s: g.set_state(s)),
]


def _state_of(generator: Any) -> Any:
    return next(get for kind, get, _ in _STATES if isinstance(generator, kind))(generator)


def _set_state(generator: Any, state: Any) -> None:
    next(put for kind, _, put in _STATES if isinstance(generator, kind))(generator, state)


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return all(_same_state(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return all(_same_state(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
