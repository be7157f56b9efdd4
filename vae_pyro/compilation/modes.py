"""Torch function modes: what torch's functions do differently while a program is traced, or runs in lower precision."""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError

MAX_CALLS = 5_000
"""Calls of torch's functions in one step, beyond which it is not traced."""
_DISPATCH = frozenset({__file__, torch.overrides.__file__, proxy_tensor.__file__})
# What gives the values of a tensor to Python, without a word to the tracer.
_READS = frozenset({Tensor.numpy, Tensor.__array__, Tensor.__float__, Tensor.__complex__, Tensor.data_ptr})


def _place() -> tuple[Any, int]:
    """The place in the code that called a tensor's method, outside of this module and of torch's dispatch."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename in _DISPATCH:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


class StandIns(TorchFunctionMode):
    """Every use of a tensor is a use of its stand-in; ``.item()`` stays on the device, as a tensor.

    Pyro's losses read their value so, only to add it up; control flow on it fails, as it must.

    Args:
        stand_ins: by the identity of a tensor, the tensor to take in its place.
    """

    def __init__(self, stand_ins: dict[int, Tensor]) -> None:
        super().__init__()
        self.stand_ins = stand_ins
        self._calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise CaptureError(f"it makes more than {MAX_CALLS} calls of torch, which take too long to trace")
        if func in _READS:
            raise CaptureError(f"Tensor.{func.__name__} gives the values of a tensor to Python")
        if func in Decisions.functions and func is not Tensor.item:
            return func(self.stand_ins.get(id(args[0]), args[0]))
        # A torch.Size is a shape and stays one: `Tensor.new` takes another tuple for values.
        args, kwargs = pytree.tree_map_only(
            Tensor,
            lambda tensor: self.stand_ins.get(id(tensor), tensor),
            (args, kwargs or {}),
            is_leaf=lambda item: isinstance(item, torch.Size),
        )
        if func is Tensor.item and args[0].is_floating_point():
            return args[0].detach()
        return func(*args, **kwargs)


class Decisions(TorchFunctionMode):
    """Records what Python read off tensors, as booleans and integers, at each place of the code.

    Attributes:
        functions: that give such values.
        read: the values, in order, by the place in the code that read them.
    """

    functions = frozenset({Tensor.__bool__, Tensor.__int__, Tensor.__index__, Tensor.item, Tensor.tolist})

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[Any, list[Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if func in self.functions:
            self.read.setdefault(_place(), []).append(value)
        return value


class Checks(TorchFunctionMode):
    """What a trace takes for granted, since it cannot look at values; collected, to be checked at every step.

    These are the checks of values and parameters that distributions make, and, where decisions of a run are given, what
    that run read off tensors in Python (``if``, ``range``): the trace reads the same.

    Args:
        decisions: of a run with the same arguments.

    Attributes:
        valid: for each check, where its values are valid.
    """

    def __init__(self, decisions: Decisions | None = None) -> None:
        super().__init__()
        self.valid: list[Tensor] = []
        self._decided = {} if decisions is None else {place: iter(read) for place, read in decisions.read.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._is_all_true:
            self.valid.append(args[0])
            return True
        if func in Decisions.functions and self._decided:
            value = next(self._decided.get(_place(), iter(())), None)
            if value is not None:
                self.valid.append(args[0] == torch.as_tensor(value, dtype=args[0].dtype, device=args[0].device))
                return value
        return func(*args, **(kwargs or {}))

    def applied_to(self, loss: Tensor) -> Tensor:
        """The loss, or NaN where a check fails."""
        if not self.valid:
            return loss
        valid = torch.stack([check.all() for check in self.valid]).all()
        return torch.where(valid, loss, torch.full_like(loss, torch.nan))


class SupportUnchecked(TorchFunctionMode):
    """Values count as inside the support of their distributions, which a trace cannot look at.

    Distributions that were made while validation was enabled go on to check after it has been disabled. The values are
    checked by the stock step with which the graph is compared.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return True if func is torch._is_all_true else func(*args, **(kwargs or {}))


class ProductsIn(TorchFunctionMode):
    """Matrix products and convolutions in another type, with inputs and results in the type that they came in.

    The networks are made of these; densities, and everything else between two products, keep their precision. A
    context around an ordinary Pyro program does the same there.

    Args:
        dtype: ``torch.bfloat16``, for instance.
    """

    products = frozenset(
        {
            nn.functional.linear,
            torch.matmul,
            torch.mm,
            torch.bmm,
            torch.addmm,
            Tensor.matmul,
            Tensor.mm,
            Tensor.bmm,
            Tensor.__matmul__,
            torch.conv1d,
            torch.conv2d,
            torch.conv3d,
            nn.functional.conv1d,
            nn.functional.conv2d,
            nn.functional.conv3d,
            nn.functional.conv_transpose1d,
            nn.functional.conv_transpose2d,
            nn.functional.conv_transpose3d,
        }
    )

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.products:
            return func(*args, **kwargs)
        came = next((item.dtype for item in args if isinstance(item, Tensor)), None)
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda tensor: tensor.to(self.dtype) if tensor.is_floating_point() else tensor, (args, kwargs)
        )
        return func(*args, **kwargs).to(came)
