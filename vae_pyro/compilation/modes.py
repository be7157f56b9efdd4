"""Torch function modes: what torch's functions do differently while a program is traced, or runs in lower precision."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError


# What gives the values of a tensor to Python, without a word to the tracer.
_READS = frozenset({Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr})


class StandIns(TorchFunctionMode):
    """Every use of a tensor is a use of its stand-in; ``.item()`` stays on the device, as a tensor.

    Pyro's losses read their value so, only to add it up; control flow on it fails, as it must.

    Args:
        stand_ins: by the identity of a tensor, the tensor to take in its place.
    """

    def __init__(self, stand_ins: dict[int, Tensor]) -> None:
        super().__init__()
        self.stand_ins = stand_ins

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise CaptureError(f"Tensor.{func.__name__} gives the values of a tensor to Python")
        # A torch.Size is a shape and stays one: `Tensor.new` takes another tuple for values.
        args, kwargs = pytree.tree_map_only(
            Tensor,
            lambda tensor: self.stand_ins.get(id(tensor), tensor),
            (args, kwargs or {}),
            is_leaf=lambda item: isinstance(item, torch.Size),
        )
        return args[0].detach() if func is Tensor.item else func(*args, **kwargs)


class SupportChecks(TorchFunctionMode):
    """Collects the checks of values and parameters that distributions make, which a trace cannot decide.

    Attributes:
        valid: for each check, where its values are valid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.valid: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch._is_all_true:
            return func(*args, **(kwargs or {}))
        self.valid.append(args[0])
        return True

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
