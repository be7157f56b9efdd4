"""A walk over everything that programs can reach from Python: attributes, global and closure variables, modules."""

import io
import os
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from pyro.infer import JitTrace_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO, JitTraceMeanField_ELBO
from pyro.ops.jit import CompiledFunction
from torch import Tensor

from vae_pyro.svi.outside.code_names import is_library, is_standard, names_of, names_of_library
from vae_pyro.svi.outside.generator_states import GENERATORS
from vae_pyro.svi.outside.places import ABSENT, ATOMS, CELL, Place

MAX_PLACES = 5_000
"""Places beyond which comparing them at every step would cost more than it saves."""
_MAX_ITEMS = 256  # of a container: beyond it, a container is known by its identity and length
_MAX_ARRAY = 4_096  # elements of an array that are compared at every step
_COMPILED = (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    CompiledFunction,
    torch.jit.ScriptFunction,
)
# What nn.Module and PyroModule keep for themselves; parameters, buffers, children and hooks are looked at on their own.
_MODULE_INTERNALS = frozenset(vars(torch.nn.Module())) - {"training"}
_CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__"})
_MODULE_TABLES = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks")


class UnwatchableError(RuntimeError):
    """The programs read something whose changes cannot be seen; the message says what."""


class Reach:
    """Everything that programs can reach from Python, found without running them.

    An attribute counts where some code names it: what no function reads by its name is out of reach, unless names are
    made up at run time.

    Args:
        roots: the programs, the loss and what else is called, by the names that messages give them.

    Attributes:
        places: of values that are compared.
        sizes: containers with their length and label.
        copies: dictionaries with their entries.
        items: lists with their items and label.
        arrays: arrays with a copy and a label.
        flags: tensors with their ``requires_grad`` and label.
        tensors: that are neither parameters nor buffers, with their label.
        generators: random generators.
        modules: modules.

    Raises:
        UnwatchableError: there is an iterator, which gives another value at every step, or there is too much.
    """

    def __init__(self, roots: Mapping[str, Any]) -> None:
        self.places: list[Place] = []
        self.sizes: list[tuple[Any, int, str]] = []
        self.copies: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self.items: list[tuple[list[Any], tuple[Any, ...], str]] = []
        self.arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]] = []
        self.flags: list[tuple[Tensor, bool, str]] = []
        self.tensors: list[tuple[str, Tensor]] = []
        self.generators: list[Any] = []
        self.modules: list[torch.nn.Module] = []
        self._seen: dict[int, Any] = {}  # keeps alive what is known by its identity
        self._classes: set[int] = set()
        self._names: set[str] = set()
        self._made_up = False
        self._unread: dict[str, list[Callable[[], None]]] = {}
        self._iterators: list[str] = []
        for label, root in roots.items():
            self._visit(root, label)
        if self._iterators:
            raise UnwatchableError(f"{self._iterators[0]} is an iterator, which gives another value at every step")

    def _visit(self, value: Any, label: str) -> None:
        if isinstance(value, ATOMS) or id(value) in self._seen:
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
            (Tensor, lambda value, label: self.flags.append((value, value.requires_grad, f"{label}.requires_grad"))),
            (GENERATORS, lambda value, _: self.generators.append(value)),
            (np.ndarray, self._visit_array),
            (types.FunctionType, self._visit_function),
            (types.MethodType, self._visit_method),
            (partial, lambda value, label: self._visit((value.func, value.args, value.keywords), label)),
            (type, self._visit_type),
            (list | tuple, self._visit_items),
            (dict, self._visit_entries),
            (set | frozenset | deque, lambda value, label: self.sizes.append((value, len(value), label))),
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
        if value is not ABSENT:
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
            self.arrays.append((part, part.copy(), label))

    def _visit_items(self, held: list[Any] | tuple[Any, ...], label: str) -> None:
        if len(held) > _MAX_ITEMS:
            self.sizes.append((held, len(held), label))
            return
        if isinstance(held, list):
            self.items.append((held, tuple(held), label))
        for number, item in enumerate(held):
            self._visit(item, f"{label}[{number}]")

    def _visit_entries(self, held: dict[Any, Any], label: str) -> None:
        self.sizes.append((held, len(held), label))
        if len(held) <= _MAX_ITEMS:
            self.copies.append((held, dict(held)))
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
        self.copies.append((attributes, dict(attributes)))
        library = is_library(cls.__module__) and not is_standard(cls.__module__)
        for name in list(attributes):
            if name.startswith("_pyro") or (is_module and name in _MODULE_INTERNALS):
                continue
            if library and (name.startswith("_") or not isinstance(attributes[name], (*ATOMS, Tensor))):
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
            self.sizes.append((held, len(held), f"{label}.{table}"))
            self.copies.append((held, dict(held)))
            for key, entry in held.items():
                self.places.append(Place(held, key, f"{label}.{key}", entry))
                self._visit(entry, f"{label}.{key}")
