"""Which program a step needs: the key of all that a traced structure depends on, and the bounded table of programs."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError
from vae_pyro.svi.parity import TraceLaterError
from vae_pyro.svi.stepper import Traced
from vae_pyro.svi.stock import Fallbacks

# Programs that differ only in Python values of the arguments; beyond these the values are data, not structure.
MAX_PROGRAMS = 16
_UNKNOWN: Any = object()


def key_of(args: tuple[Any, ...], kwargs: dict[str, Any], modes: tuple[bool, ...]) -> Any:
    """What a program of these arguments is found by: shapes, Python values, and training modes of modules."""
    if not kwargs and all(isinstance(item, Tensor) for item in args):
        return tuple([(item.shape, item.dtype, item.device) for item in args]), modes
    flat, spec = pytree.tree_flatten((args, kwargs))
    return tuple([_signature(item) for item in flat]), str(spec), modes


def _signature(item: Any) -> Any:
    return (item.shape, item.dtype, item.device) if isinstance(item, Tensor) else (type(item), item)


class ProgramTable:
    """The programs of one `vae_pyro.svi.compiled_svi.CompiledSVI`.

    Args:
        trace: makes the program for arguments of a step.
        fallbacks: hears why a step has no program.
    """

    def __init__(self, trace: Callable[[tuple[Any, ...], dict[str, Any]], Traced], fallbacks: Fallbacks) -> None:
        self._make, self._fallbacks = trace, fallbacks
        self._traced: dict[Any, Traced | None] = {}

    def __len__(self) -> int:
        return len(self._traced)

    def __iter__(self) -> Iterator[Traced]:
        """Those of the combinations of arguments that could be traced."""
        return (traced for traced in self._traced.values() if traced is not None)

    def known(self, key: Any) -> Traced | None:
        """The program of a key, if it has been traced."""
        return self._traced.get(key)

    def find(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced | None:
        """The program of a key, traced where it is new or stale; ``None`` where this step is to be a stock step."""
        try:
            known = self._traced.get(key, _UNKNOWN)
        except TypeError:
            self._fallbacks.say("an argument of the step is neither a tensor nor hashable; stock steps are taken")
            return None
        if known is _UNKNOWN or (known is not None and known.form.stale):
            return self._trace(key, args, kwargs)
        return known

    def forget(self) -> None:
        """Drop all programs."""
        self._traced.clear()

    def _trace(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced | None:
        if len(self._traced) >= MAX_PROGRAMS and key not in self._traced:
            self._fallbacks.say(f"more than {MAX_PROGRAMS} combinations of arguments; others take the stock step")
            return None
        try:
            self._traced[key] = self._make(args, kwargs)
        except TraceLaterError:
            return None
        except CaptureError as error:
            self._fallbacks.say(f"the step cannot be compiled: {error}; stock steps are taken")
            self._traced[key] = None
        return self._traced[key]
