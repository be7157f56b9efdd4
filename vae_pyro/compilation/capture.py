"""A Pyro loss and its gradient as one flat graph of tensor operations, with everything that it reads made explicit.

The effect handlers run once, under a tracer; what they leave behind is a graph ``(leaves, constants, batch, noise) ->
(loss, metrics, gradients)`` without a handler, a parameter store or a random generator in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from vae_pyro.compilation.graph import CaptureError, Graph, ValueDependentError, lift_constants, lift_noise
from vae_pyro.compilation.modes import Checks, Decisions, ProductsIn, StandIns, SupportUnchecked
from vae_pyro.compilation.patches import without_nan_warnings
from vae_pyro.core.isolation import undisturbed

type PyroProgram = Callable[..., Any]
type Loss = ELBO | Callable[..., Any]
type Prepare = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


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


class Reading(Protocol):
    """A number outside of the programs, such as an attribute, that they read while they run."""

    def get(self) -> Any: ...

    def set(self, value: Any) -> None: ...


@dataclass(frozen=True)
class Subject:
    """What is traced: a loss with its gradient, as `pyro.infer.SVI` runs it.

    Attributes:
        loss_and_grads: ``loss_and_grads(model, guide, *args, **kwargs)``, which gives the loss and adds its gradient to
            that of the parameters; all that SVI knows of a loss.
        model: Pyro model.
        guide: Pyro guide.
        loss: that `loss_and_grads` belongs to, whose ``metrics`` are read off it.
        prepare: maps a raw batch to ``(args, kwargs)`` of the programs, inside the graph.
        autocast: type of the networks' products, see `ProductsIn`.
        checks: supports of values and parameters are checked where validation is enabled.
    """

    loss_and_grads: Callable[..., Any]
    model: PyroProgram
    guide: PyroProgram
    loss: Any = None
    prepare: Prepare | None = None
    autocast: torch.dtype | None = None
    checks: bool = True


def capture(
    subject: Subject,
    leaves: Sequence[Tensor],
    batch: Sequence[Any],
    spec: pytree.TreeSpec,
    *,
    numbers: Sequence[Reading] = (),
    decisions: Decisions | None = None,
) -> Graph:
    """Trace a loss and its gradient.

    Checks of support and of parameters, where validation is enabled, become part of the loss: it is NaN where one
    fails.

    Args:
        subject: what is traced; its structure may depend on shapes and Python values, not on values of tensors.
        leaves: unconstrained parameters. One that the loss does not depend on has a gradient, of zeros, where it holds
            one already, as in the step of `pyro.infer.SVI`.
        batch: flattened ``(args, kwargs)`` of the programs, or of ``prepare``; what is neither a tensor nor a
            `NumberInput` is constant.
        spec: how `batch` was flattened.
        numbers: numbers outside of the programs that are inputs of the graph.
        decisions: what a run with these arguments has read off tensors in Python; the graph takes the same way, and
            its loss is NaN where another would have been taken.

    Returns:
        The graph, with mutations removed.

    Raises:
        ValueDependentError: the loss depends on the value of a tensor in Python (``if``, ``range``).
        CaptureError: it cannot be traced for another reason, or is not differentiable.
    """
    names: list[str] = []
    used: list[bool] = []
    inputs = [number for number, item in enumerate(batch) if isinstance(item, Tensor | NumberInput)]
    held = [leaf.grad is not None for leaf in leaves]

    def evaluate(*flat: Tensor) -> tuple[Tensor, ...]:
        stands = [leaf.detach().requires_grad_() for leaf in flat[: len(leaves)]]
        items, rest = list(batch), list(flat[len(leaves) :])
        for number in inputs:
            items[number] = rest.pop(0)
        args, kwargs = pytree.tree_unflatten(items, spec)
        stand_ins = {id(a): b for a, b in zip(leaves, stands, strict=True)}
        checks = Checks(decisions)
        validated = subject.checks and torch.distributions.Distribution._validate_args
        with (
            torch.enable_grad(),
            pyro.validation_enabled(False),
            pyro.distributions.validation_enabled(validated),
            _reading(numbers, rest),
            checks,
            StandIns(stand_ins),
        ):
            if subject.prepare is not None:
                with torch.no_grad():
                    args, kwargs = subject.prepare(*args, **kwargs)
            with ProductsIn(subject.autocast) if subject.autocast is not None else nullcontext():
                value = subject.loss_and_grads(subject.model, subject.guide, *args, **kwargs)
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise CaptureError(f"the loss is {kind}, not one number that depends on a tensor")
        value = checks.applied_to(value.detach().reshape(()))
        metrics: dict[str, Tensor] = dict(getattr(subject.loss, "metrics", {}))
        gradients = [
            torch.zeros_like(stand) if stand.grad is None and has_one else stand.grad
            for stand, has_one in zip(stands, held, strict=True)
        ]
        names[:] = list(metrics)
        used[:] = [gradient is not None for gradient in gradients]
        outputs = [value, *metrics.values(), *(gradient for gradient in gradients if gradient is not None)]
        return tuple(tensor.detach() for tensor in outputs)

    like = leaves[0]
    tensors = [*leaves]
    tensors += [item if isinstance(item, Tensor) else item.tensor(like) for item in (batch[at] for at in inputs)]
    tensors += [NumberInput(reading.get()).tensor(like) for reading in numbers]
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
    num_batch = len(inputs) + len(numbers)
    graph = Graph(functional, len(leaves), num_batch, constants, metrics=list(names), used=list(used))
    lift_noise(graph)
    return graph


@dataclass(frozen=True)
class NumberInput:
    """A floating-point number among the arguments that is an input of the graph, as a tensor without dimensions."""

    value: float

    def tensor(self, like: Tensor) -> Tensor:
        """The number, in type and on the device of another tensor."""
        return torch.tensor(self.value, dtype=like.dtype, device=like.device)


@contextmanager
def _reading(numbers: Sequence[Reading], values: Sequence[Tensor]) -> Iterator[None]:
    """Let the programs read tensors where numbers stand."""
    kept = [reading.get() for reading in numbers]
    try:
        for reading, value in zip(numbers, values, strict=True):
            reading.set(value)
        yield
    finally:
        for reading, value in zip(numbers, kept, strict=True):
            reading.set(value)


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
        raise ValueDependentError(f"its structure depends on the value of a tensor ({reason})") from error
    except CaptureError as error:
        raise CaptureError(str(error).partition("\n")[0]) from error  # Pyro adds the shapes of its trace
    except Exception as error:  # whatever a program does that a tracer cannot: the stock step has run it before
        reason = " ".join(str(error).split())[:200]
        raise CaptureError(f"it cannot be traced ({type(error).__name__}: {reason})") from error
