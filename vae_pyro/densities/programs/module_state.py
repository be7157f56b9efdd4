"""The modules that a pair's programs run: found, put into evaluation mode for an estimate, and left as they were."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

# How far a module is looked for inside of what a program holds.
_DEPTH = 5


class ModuleState:
    """Modules of some programs.

    Args:
        programs: modules, methods of modules or of objects that hold some, and functions that close over them or name
            them. What no program leads to is found when it runs inside `watching`.
    """

    def __init__(self, *programs: Any) -> None:
        found: dict[int, nn.Module] = {}
        seen: set[int] = set()
        for program in programs:
            for module in _reach(program, seen, _DEPTH):
                found.update((id(part), part) for part in module.modules())
        self._modules = found
        self._moves_buffers = False

    @property
    def modules(self) -> list[nn.Module]:
        """All of them, submodules included."""
        return list(self._modules.values())

    @property
    def training(self) -> bool:
        """Whether one of them is in training mode."""
        return any(module.training for module in self.modules)

    def parameters(self) -> Iterator[Tensor]:
        """Floating-point parameters and buffers, parameters first."""
        for kind in ("_parameters", "_buffers"):
            for module in self.modules:
                for value in getattr(module, kind).values():
                    if isinstance(value, Tensor) and value.is_floating_point():
                        yield value

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode; afterwards, whatever happens, each module is in its former one, and no buffer has moved."""
        changed = [module for module in self._modules.values() if module.training]
        buffers = _buffers(self.modules) if self._moves_buffers else []
        for module in changed:
            module.training = False
        try:
            yield
        finally:
            for module in changed:
                module.training = True
            _restore(buffers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """As `evaluating`, and modules that run are found, whichever way the programs hold them."""
        changed: list[nn.Module] = []
        buffers = _buffers(self.modules)

        def before(module: nn.Module, _: Any) -> None:
            for part in module.modules() if id(module) not in self._modules else (module,):
                if id(part) not in self._modules:
                    self._modules[id(part)] = part
                    buffers.extend(_buffers([part]))
                if part.training:
                    part.training = False
                    changed.append(part)

        hook = register_module_forward_pre_hook(before)
        try:
            with self.evaluating():
                yield
        finally:
            hook.remove()
            for module in changed:
                module.training = True
            self._moves_buffers = _restore(buffers) or self._moves_buffers


def _reach(thing: Any, seen: set[int], depth: int) -> Iterator[nn.Module]:
    if depth < 0 or id(thing) in seen or isinstance(thing, Tensor | str | bytes | int | float | type):
        return
    seen.add(id(thing))
    inside: Iterable[Any] = ()
    if isinstance(thing, nn.Module):
        yield thing
    elif isinstance(thing, MethodType):
        inside = (thing.__self__, thing.__func__)
    elif isinstance(thing, partial):
        inside = (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
        named = [thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__]
        near = [value for value in named if not callable(value) or getattr(value, "__module__", "") == thing.__module__]
        modules = [value for value in named if isinstance(value, nn.Module)]
        inside = (*cells, *near, *modules, getattr(thing, "__wrapped__", None))
    elif isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple | set):
        inside = thing
    elif hasattr(thing, "__dict__") and not isinstance(thing, type(torch)):
        inside = vars(thing).values()
    for part in list(inside):
        yield from _reach(part, seen, depth - 1)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (a cell that is not bound yet raises)
    except ValueError:
        return False
    return True


type _Buffer = tuple[nn.Module, str, Tensor, int, Tensor]


def _buffers(modules: list[nn.Module]) -> list[_Buffer]:
    return [
        (module, name, value, value._version, value.detach().clone())
        for module in modules
        for name, value in module._buffers.items()
        if value is not None
    ]


@torch.no_grad()
def _restore(buffers: list[_Buffer]) -> bool:
    """Put buffers back; whether one had moved."""
    moved = False
    for module, name, value, version, kept in buffers:
        if module._buffers.get(name) is not value or value._version != version:
            moved = True
            value.copy_(kept)
            module._buffers[name] = value
    return moved
