"""States of random generators, to find out which a run has moved and to put them back."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)


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
