"""A Pyro loss and its gradient as one flat graph of tensor operations, with everything that it reads made explicit.

The effect handlers run once, under a tracer; what they leave behind is a graph ``(leaves, constants, batch, noise) ->
(loss, metrics, gradients)`` without a handler, a parameter store or a random generator in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError, Graph, lift_constants, lift_noise
from vae_pyro.compilation.modes import ProductsIn, StandIns, SupportUnchecked
from vae_pyro.compilation.patches import without_nan_warnings
from vae_pyro.core.isolation import undisturbed

type PyroProgram = Callable[..., Any]
type Loss = ELBO | Callable[..., Any]
type Prepare = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


def differentiable_loss(
    loss: Loss, model: PyroProgram, guide: PyroProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The loss as a tensor whose gradient is the loss's gradient estimate.

    Raises:
        CaptureError: the loss has no differentiable form.
    """
    function = loss.differentiable_loss if isinstance(loss, ELBO) else loss
    try:
        value = function(model, guide, *args, **kwargs)
    except NotImplementedError as error:
        raise CaptureError(f"{type(loss).__name__} has no differentiable_loss") from error
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise CaptureError(f"the loss is {type(value).__name__} without a gradient")
    return value


def find_leaves(
    loss: Loss, model: PyroProgram, guide: PyroProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    """Unconstrained parameters that a loss uses, by name, after a run that makes those that are made lazily.

    The run draws from torch's generator as it stands; nothing is kept of its value.
    """
    with pyro.poutine.trace(param_only=True) as captured:
        function = loss.differentiable_loss if isinstance(loss, ELBO) else loss
        function(model, guide, *args, **kwargs)
    return {name: leaf for name, leaf in leaves_of(captured.trace).items() if leaf.requires_grad}


def leaves_of(trace: Any) -> dict[str, Tensor]:
    """Unconstrained parameters at the sites of a Pyro trace, each once, under the name that it had first."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, site in trace.nodes.items():
        leaf = site["value"].unconstrained()
        found.setdefault(id(leaf), (name, leaf))
    return dict(found.values())


def capture(
    loss: Loss,
    model: PyroProgram,
    guide: PyroProgram,
    leaves: Sequence[Tensor],
    batch: Sequence[Any],
    spec: pytree.TreeSpec,
    *,
    prepare: Prepare | None = None,
    autocast: torch.dtype | None = None,
) -> Graph:
    """Trace a loss and its gradient.

    Args:
        loss: a Pyro `ELBO` with ``differentiable_loss``, or ``loss(model, guide, *args, **kwargs) -> tensor``.
        model: Pyro model of static structure.
        guide: Pyro guide of static structure.
        leaves: unconstrained parameters, see `find_leaves`.
        batch: flattened ``(args, kwargs)`` of the programs, or of ``prepare``; what is not a tensor is constant.
        spec: how `batch` was flattened.
        prepare: maps a raw batch to ``(args, kwargs)`` of the programs, inside the graph.
        autocast: type of the networks' products, see `ProductsIn`.

    Returns:
        The graph, with mutations removed.

    Raises:
        CaptureError: the loss depends on the value of a tensor in Python (``if``, ``float``), or is not differentiable.
    """
    names: list[str] = []
    used: list[bool] = []
    positions = [number for number, item in enumerate(batch) if isinstance(item, Tensor)]

    def evaluate(*flat: Tensor) -> tuple[Tensor, ...]:
        stands = [leaf.detach().requires_grad_() for leaf in flat[: len(leaves)]]
        items = list(batch)
        for number, tensor in zip(positions, flat[len(leaves) :], strict=True):
            items[number] = tensor
        args, kwargs = pytree.tree_unflatten(items, spec)
        stand_ins = {id(a): b for a, b in zip(leaves, stands, strict=True)}
        with torch.enable_grad(), pyro.validation_enabled(False), SupportUnchecked(), StandIns(stand_ins):
            if prepare is not None:
                with torch.no_grad():
                    args, kwargs = prepare(*args, **kwargs)
            with ProductsIn(autocast) if autocast is not None else nullcontext():
                value = differentiable_loss(loss, model, guide, args, kwargs)
        metrics: dict[str, Tensor] = dict(getattr(loss, "metrics", {}))
        gradients = torch.autograd.grad(value, stands, allow_unused=True)
        names[:] = list(metrics)
        used[:] = [gradient is not None for gradient in gradients]
        outputs = [value, *metrics.values(), *(gradient for gradient in gradients if gradient is not None)]
        return tuple(tensor.detach() for tensor in outputs)

    tensors = [*leaves, *(batch[number] for number in positions)]
    with _tracing() as mode:
        fakes = [mode.from_tensor(tensor.detach()) for tensor in tensors]
        traced = make_fx(evaluate, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
        constants = lift_constants(traced, mode)
        fakes += [mode.from_tensor(tensor.detach()) for tensor in constants]
        functional = make_fx(
            torch.func.functionalize(traced, remove="mutations"), tracing_mode="fake", _allow_non_fake_inputs=True
        )(*fakes)
    if not any(used):
        raise CaptureError("the loss depends on no parameter")
    graph = Graph(functional, len(leaves), len(positions), constants, metrics=list(names), used=list(used))
    lift_noise(graph)
    return graph


def capture_function(function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]) -> Graph:
    """Trace a function of tensors without randomness, and without its gradient.

    Args:
        function: of the tensors; other tensors that it reads are inputs of the graph after them, by reference.
        tensors: of the shapes that it will be called with.

    Raises:
        CaptureError: see `capture`.
    """

    def evaluate(*flat: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), pyro.validation_enabled(False), SupportUnchecked():
            return tuple(output.detach() for output in function(*flat))

    with _tracing() as mode:
        fakes = [mode.from_tensor(tensor.detach()) for tensor in tensors]
        traced = make_fx(evaluate, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
        constants = lift_constants(traced, mode)
    return Graph(traced, 0, len(tensors), constants)


@contextmanager
def _tracing() -> Iterator[Any]:
    """A fake tensor mode; errors of the tracer become one error, and generators and globals stay as they are."""
    with undisturbed():
        from torch._subclasses.fake_tensor import (
            DataDependentOutputException,
            DynamicOutputShapeException,
            FakeTensorMode,
            UnsupportedOperatorException,
        )
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    try:
        with torch.random.fork_rng(devices=[]), undisturbed(), without_nan_warnings():
            yield FakeTensorMode(allow_non_fake_inputs=True)
    except (
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
        UnsupportedOperatorException,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise CaptureError(f"its structure depends on the value of a tensor ({reason})") from error
