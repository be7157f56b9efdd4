"""What a machine can hold: allocations that it cannot are refused before they begin, with their size."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Where Linux states the limit of memory of a container, of both versions of control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_MAKERS = (
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.rand,
    torch.randn,
    torch.eye,
    torch.arange,
    torch.tril_indices,
)
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def memory_bytes() -> int:
    """Memory that this process can have at most: of the machine, of its container, and of its own limit."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _LIMITS:
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or no limit: "max"
            continue
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min([*found, own] if own != resource.RLIM_INFINITY else found)


def require_memory(size: float, what: str, way_out: str = "") -> None:
    """Refuse what can never be held in memory, before anything of it is allocated.

    Args:
        size: bytes.
        what: takes them, as a message begins.
        way_out: what to do instead.

    Raises:
        ValueError: more than `memory_bytes`; the message names both.

    >>> require_memory(2**70, "latent_dim=5: the weights", "lower latent_dim")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: latent_dim=5: the weights take 1,024 EiB of memory, and at most ... are there; lower latent_dim
    """
    there = memory_bytes()
    if size > there:
        raise ValueError(
            f"{what} take {in_units(size)} of memory, and at most {in_units(there)} are there"
            + (f"; {way_out}" if way_out else "")
        )


def in_units(size: float) -> str:
    """Bytes in the largest unit of which there is one.

    >>> in_units(1536), in_units(3 << 40)
    ('1.5 KiB', '3 TiB')
    """
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:,.0f} {_UNITS[power]}" if size >= 100 else f"{size:.3g} {_UNITS[power]}"


class _Sizes(TorchFunctionMode):
    """Adds up what factory functions are asked for, and refuses the one that goes beyond the memory."""

    def __init__(self, what: str, way_out: str) -> None:
        super().__init__()
        self.what, self.way_out, self.size = what, way_out, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            alike = {**kwargs, "device": "meta"}
            if "generator" in alike:
                alike["generator"] = None
            try:
                planned = func(*args, **alike)
            except (RuntimeError, TypeError):  # sizes beyond 64 bits
                raise ValueError(f"{self.what} have more than 2^63 elements; {self.way_out}") from None
            self.size += planned.numel() * planned.element_size()
            require_memory(self.size, self.what, self.way_out)
        return func(*args, **kwargs)


@contextmanager
def allocations_within_memory(what: str, way_out: str) -> Iterator[None]:
    """While inside, tensors that are made, all together, fit into the memory of the machine.

    Args:
        what: is made of them, as a message begins.
        way_out: see `require_memory`.

    Raises:
        ValueError: they do not; before the first is allocated that goes beyond it.
    """
    with _Sizes(what, way_out):
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, NumPy or torch, whose error on a CPU has no type of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
