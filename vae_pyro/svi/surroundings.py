"""What programs read beside arguments, parameters and buffers: found once, compared at every step.

A traced program has baked in every Python value that it met: attributes of objects, global and closure variables, the
training mode of modules. `Surroundings` walks over everything that the programs can reach from Python, without running
them, and holds each value with the place where it stands. A step whose places hold the same values can take the traced
program; any other cannot.
"""

import io
import math
import os
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from pyro.infer import JitTrace_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO, JitTraceMeanField_ELBO
from pyro.ops.jit import CompiledFunction
from torch import Tensor

from vae_pyro.svi.code_names import is_library, is_standard, names_of, names_of_library
from vae_pyro.svi.generator_states import GENERATORS

MAX_PLACES = 5_000
"""Places beyond which comparing them at every step would cost more than it saves."""
_MAX_ITEMS = 256  # of a container: beyond it, a container is known by its identity and length
_MAX_ARRAY = 4_096  # elements of an array that are compared at every step
_ABSENT: Any = object()
_COMPILED = (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    CompiledFunction,
    torch.jit.ScriptFunction,
)
CELL: Any = object()
NUMBERS = (float, np.floating)
"""Types of floating-point numbers that may become inputs of a program."""
_ATOMS = (bool, int, float, complex, str, bytes, np.generic, type(None), Enum, torch.dtype, torch.device, torch.Size)
# What nn.Module and PyroModule keep for themselves; parameters, buffers, children and hooks are looked at on their own.
_MODULE_INTERNALS = frozenset(vars(torch.nn.Module())) - {"training"}
_CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__"})
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
        return isinstance(self.value, NUMBERS) and not isinstance(self.holder, types.MappingProxyType)


class Surroundings:
    """Values that programs can reach.

    Args:
        roots: the programs, the loss and what else is called, by the names that messages give them.
        numbers: labels of places whose numbers are inputs of the program, and may change.

    Attributes:
        bound: places of tensors that are inputs of the program, with the number of each among its constants; another
            tensor of the same shape may stand there.
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
        self._classes: set[int] = set()
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
        self.bound: list[tuple[Place, int]] = []
        self._collect()

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

    def rebind(self, constants: list[Tensor]) -> None:
        """Put the tensors that stand at the places now among a program's constants."""
        for place, number in self.bound:
            constants[number] = place.get()

    def _collect(self) -> None:
        self._entries = [(place.holder, place.key, place.value) for place in self.places if place.key is not CELL]
        self._cells = [(place.holder, place.value) for place in self.places if place.key is CELL]

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
            and self._tensors_hold()
            and all(isinstance(place.get(), NUMBERS) for place in self.numbers)
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
        only = {place.label for place in places if place.is_number and isinstance(place.get(), NUMBERS)}
        return sorted(changed) if changed == only else []

    def put_back(self) -> None:
        """Give everything the value again that it had, after a run that is to leave no trace."""
        for place in (*self.places, *self.numbers, *(place for place, _ in self.bound)):
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
        for kinds, visit in self._visits:
            if isinstance(value, kinds):
                visit(value, label)
                return
        self._visit_object(value, label)

    @cached_property
    def _visits(self) -> list[tuple[Any, Callable[[Any, str], None]]]:
        """How values of some kinds are visited; the first that fits is taken."""
        return [
            (Tensor, lambda value, label: self._flags.append((value, value.requires_grad, f"{label}.requires_grad"))),
            (GENERATORS, lambda value, _: self.generators.append(value)),
            (np.ndarray, self._visit_array),
            (types.FunctionType, self._visit_function),
            (types.MethodType, self._visit_method),
            (partial, lambda value, label: self._visit((value.func, value.args, value.keywords), label)),
            (type, self._visit_type),
            (list | tuple, self._visit_items),
            (dict, self._visit_entries),
            (set | frozenset | deque, lambda value, label: self._sizes.append((value, len(value), label))),
            (types.ModuleType | types.BuiltinFunctionType | types.MethodWrapperType | io.IOBase, lambda *_: None),
            (Iterator, lambda _, label: self._iterators.append(label)),
        ]

    def _visit_method(self, method: types.MethodType, label: str) -> None:
        self._visit(method.__self__, label.rpartition(".")[0] or label)
        self._visit(method.__func__, label)

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
        if read.attributes & {"environ", "getenv"}:
            self._visit(os.environ._data, "os.environ")  # type: ignore[attr-defined]
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

    def _visit_type(self, cls: type, label: str) -> None:
        """A class that the programs can reach by its name, and make instances of."""
        if id(cls) not in self._classes:
            self._classes.add(id(cls))
            self._visit_class(cls)
        for base in cls.__mro__:
            for name in _CONSTRUCTORS & vars(base).keys():
                if not is_library(base.__module__):
                    self._visit(getattr(vars(base)[name], "__func__", vars(base)[name]), f"{cls.__name__}.{name}")

    def _visit_class(self, cls: type) -> None:
        """Methods and class attributes that the programs can read off an instance."""
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
                at = f"{cls.__name__}.{name}"
                if name in _CONSTRUCTORS:
                    continue
                if isinstance(held, types.FunctionType):
                    if name.startswith("__") or any(name in vars(above) for above in library):
                        self._visit(held, at)  # Python or the library calls it
                    else:
                        self._when_read(name, partial(self._visit, held, at))
                elif not name.startswith("__") and not callable(held):
                    self._when_read(name, partial(self._hold, vars(base), name, at))

    def _visit_object(self, value: Any, label: str) -> None:
        cls = type(value)
        if id(cls) not in self._classes:
            self._classes.add(id(cls))
            self._visit_class(cls)
        attributes = getattr(value, "__dict__", None)
        is_module = isinstance(value, torch.nn.Module)
        if isinstance(value, torch.jit.ScriptModule):
            raise UnwatchableError(f"{label} is a scripted module")
        if isinstance(value, _COMPILED):
            raise UnwatchableError(f"{label} is a {cls.__name__}, which torch.jit compiles")
        if is_module:
            self._visit_module(value, label)
        if not isinstance(attributes, dict):
            return
        self._copies.append((attributes, dict(attributes)))
        library = is_library(cls.__module__) and not is_standard(cls.__module__)
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


def _is_like(now: Any, value: Tensor) -> bool:
    """Whether a tensor can take the place of another in a program; on a GPU, recorded graphs know it by its address."""
    return (
        type(now) is type(value)
        and now.device.type == "cpu" == value.device.type
        and (now.shape, now.stride(), now.dtype) == (value.shape, value.stride(), value.dtype)
        and not now.requires_grad
    )


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
