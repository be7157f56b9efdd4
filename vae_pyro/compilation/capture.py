"""A Pyro loss and its gradient as one flat graph of tensor operations, with everything that it reads made explicit.

The effect handlers run once, under a tracer; what they leave behind is a graph ``(leaves, constants, batch, noise) ->
(loss, metrics, gradients)`` without a handler, a parameter store or a random generator in it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from vae_pyro.core.isolation import undisturbed

type Program = Callable[..., Any]
type Loss = ELBO | Callable[..., Any]
type Prepare = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]

_aten = torch.ops.aten


class CaptureError(RuntimeError):
    """The loss cannot be written as a static graph; the message says why."""


@dataclass(frozen=True)
class Noise:
    """A random tensor whose distribution depends on nothing that is learned, drawn outside the graph.

    Attributes:
        method: the tensor method that fills it: ``normal_``, ``uniform_``, ``exponential_`` or ``bernoulli_``.
        arguments: of the method.
        shape: of the tensor.
        dtype: of the tensor.
        device: of the tensor.
    """

    method: str
    arguments: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def empty(self) -> Tensor:
        """Room for one draw."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)

    def fill(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw into ``out``, from torch's generator unless another is given."""
        filled: Tensor = getattr(out, self.method)(*self.arguments, generator=generator)
        return filled


# What the operators look like once mutations are removed, and the method that draws the same numbers.
_NOISE: dict[Any, tuple[str, tuple[float, ...]]] = {
    _aten.normal_functional.default: ("normal_", (0.0, 1.0)),
    _aten.uniform.default: ("uniform_", (0.0, 1.0)),
    _aten.exponential.default: ("exponential_", (1.0,)),
    _aten.bernoulli.p: ("bernoulli_", (0.5,)),
    _aten.randn.default: ("normal_", ()),
    _aten.randn_like.default: ("normal_", ()),
    _aten.rand.default: ("uniform_", ()),
    _aten.rand_like.default: ("uniform_", ()),
}
_WITH_ARGUMENTS = {target for target, (_, arguments) in _NOISE.items() if arguments}


@dataclass
class Graph:
    """What `capture` leaves.

    Attributes:
        module: ``(*leaves, *batch, *constants, *noise) -> (loss, *metrics, *gradients)``, without mutation of its
            inputs, other than of constants that the program itself writes to.
        constants: tensors that the programs read beside parameters and batch (buffers, schedules), by reference: a
            value written into one is seen by the next step.
        noise: random inputs, in the order of the draws.
        metrics: names of the loss's metrics.
        used: for each leaf, whether the loss depends on it; only those have a gradient.
        random_inside: random operators that stay in the graph since their distribution depends on its values.
    """

    module: fx.GraphModule
    num_leaves: int
    num_batch: int
    constants: list[Tensor] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    used: list[bool] = field(default_factory=list)
    random_inside: list[str] = field(default_factory=list)

    def example(self) -> list[Any]:
        """Fake tensors in the shape of the inputs."""
        return [node.meta["val"] for node in self.module.graph.nodes if node.op == "placeholder"]

    def split(self, outputs: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """Loss, metrics by name, and gradients of the leaves that are used."""
        loss, rest = outputs[0], list(outputs[1:])
        count = len(self.metrics)
        return loss, dict(zip(self.metrics, rest[:count], strict=True)), rest[count:]


class _StandIns(TorchFunctionMode):
    """Every use of a tensor is a use of its stand-in; ``.item()`` stays on the device, as a tensor."""

    def __init__(self, stand_ins: dict[int, Tensor]) -> None:
        super().__init__()
        self.stand_ins = stand_ins

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda tensor: self.stand_ins.get(id(tensor), tensor), (args, kwargs or {})
        )
        if func is Tensor.item:
            # Pyro's losses read their value so, only to add it up; control flow on it fails below, as it must.
            return args[0].detach()
        return func(*args, **kwargs)


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without checks that read a tensor's value: Pyro's validation and its warning of NaN."""
    with ExitStack() as stack:
        stack.enter_context(pyro.validation_enabled(False))
        # Distributions that were made while validation was on keep checking.
        stack.enter_context(mock.patch.object(torch.distributions.Distribution, "_validate_sample"))
        for name, module in list(sys.modules.items()):
            # A loss may wrap another, so the warning is taken out wherever one could have imported it.
            if name.startswith(("pyro.infer", "vae_pyro")) and hasattr(module, "warn_if_nan"):
                stack.enter_context(mock.patch.object(module, "warn_if_nan"))
        yield


def differentiable_loss(
    loss: Loss, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
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
    loss: Loss,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Tensor]:
    """Unconstrained parameters that a loss uses, by name, after a run that makes those that are made lazily.

    The run draws from torch's generator as it stands; nothing is kept of its value.
    """
    with pyro.poutine.trace(param_only=True) as captured:
        function = loss.differentiable_loss if isinstance(loss, ELBO) else loss
        function(model, guide, *args, **kwargs)
    found: dict[int, tuple[str, Tensor]] = {}
    for name, site in captured.trace.nodes.items():
        leaf = site["value"].unconstrained()
        found.setdefault(id(leaf), (name, leaf))
    return {name: leaf for name, leaf in found.values() if leaf.requires_grad}


def capture(
    loss: Loss,
    model: Program,
    guide: Program,
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
    with undisturbed():
        from torch._subclasses.fake_tensor import FakeTensorMode

    names: list[str] = []
    used: list[bool] = []
    positions = [number for number, item in enumerate(batch) if isinstance(item, Tensor)]

    def evaluate(*flat: Tensor) -> tuple[Tensor, ...]:
        stands = [leaf.detach().requires_grad_() for leaf in flat[: len(leaves)]]
        items = list(batch)
        for number, tensor in zip(positions, flat[len(leaves) :], strict=True):
            items[number] = tensor
        args, kwargs = pytree.tree_unflatten(items, spec)
        with torch.enable_grad(), _quiet(), _StandIns({id(a): b for a, b in zip(leaves, stands, strict=True)}):
            if prepare is not None:
                with torch.no_grad():
                    args, kwargs = prepare(*args, **kwargs)
            with ProductsIn(autocast) if autocast is not None else ExitStack():
                value = differentiable_loss(loss, model, guide, args, kwargs)
        metrics: dict[str, Tensor] = dict(getattr(loss, "metrics", {}))
        gradients = torch.autograd.grad(value, stands, allow_unused=True)
        names[:] = list(metrics)
        used[:] = [gradient is not None for gradient in gradients]
        outputs = [value, *metrics.values(), *(gradient for gradient in gradients if gradient is not None)]
        return tuple(tensor.detach() for tensor in outputs)

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    tensors = [*leaves, *(batch[number] for number in positions)]
    fakes = [mode.from_tensor(tensor.detach()) for tensor in tensors]
    with _static():
        traced = make_fx(evaluate, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
        constants = _lift_constants(traced, mode)
        fakes += [mode.from_tensor(tensor.detach()) for tensor in constants]
        functional = make_fx(
            torch.func.functionalize(traced, remove="mutations"), tracing_mode="fake", _allow_non_fake_inputs=True
        )(*fakes)
    if not any(used):
        raise CaptureError("the loss depends on no parameter")
    graph = Graph(functional, len(leaves), len(positions), constants, metrics=list(names), used=list(used))
    _lift_noise(graph)
    return graph


def capture_function(function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]) -> Graph:
    """Trace a function of tensors without randomness, and without its gradient.

    Args:
        function: of the tensors; other tensors that it reads are inputs of the graph after them, by reference.
        tensors: of the shapes that it will be called with.

    Raises:
        CaptureError: see `capture`.
    """
    with undisturbed():
        from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(tensor.detach()) for tensor in tensors]

    def evaluate(*flat: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), _quiet():
            return tuple(output.detach() for output in function(*flat))

    with _static():
        traced = make_fx(evaluate, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
        constants = _lift_constants(traced, mode)
    return Graph(traced, 0, len(tensors), constants)


@contextmanager
def _static() -> Iterator[None]:
    """Errors of the tracer as one error, and the generator left as it is."""
    with undisturbed():
        from torch._subclasses.fake_tensor import (
            DataDependentOutputException,
            DynamicOutputShapeException,
            UnsupportedOperatorException,
        )
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    try:
        with torch.random.fork_rng(devices=[]), undisturbed():
            yield
    except (
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
        UnsupportedOperatorException,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise CaptureError(f"its structure depends on the value of a tensor ({reason})") from error


def _lift_constants(module: fx.GraphModule, mode: Any) -> list[Tensor]:
    """Turn tensors that the graph holds by reference into inputs after the others."""
    graph = module.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    constants: list[Tensor] = []
    placeholders: dict[int, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        tensor = cast(Any, module)
        for part in str(node.target).split("."):
            tensor = getattr(tensor, part)
        if not isinstance(tensor, Tensor):
            raise CaptureError(f"the graph holds {type(tensor).__name__}, which is not a tensor")
        if id(tensor) not in placeholders:
            with graph.inserting_after(last):
                last = graph.placeholder(f"constant_{len(constants)}")
            last.meta["val"] = mode.from_tensor(tensor.detach())
            placeholders[id(tensor)] = last
            constants.append(tensor)
        node.replace_all_uses_with(placeholders[id(tensor)])
        graph.erase_node(node)
    module.recompile()
    return constants


def _lift_noise(graph: Graph) -> None:
    """Turn draws whose distribution is fixed into inputs after the others."""
    nodes = graph.module.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    for node in list(nodes.nodes):
        if node.op != "call_function":
            continue
        if node.target not in _NOISE:
            tags = getattr(node.target, "tags", ())
            if torch.Tag.nondeterministic_seeded in tags:
                graph.random_inside.append(str(node.target))
            continue
        method, defaults = _NOISE[node.target]
        if node.target in _WITH_ARGUMENTS:
            given = (*node.args[1:], *defaults[len(node.args) - 1 :])
            arguments = tuple(float(cast(float, value)) for value in given)
        else:
            arguments = ()
        value = node.meta["val"]
        graph.noise.append(Noise(method, arguments, tuple(value.shape), value.dtype, value.device))
        with nodes.inserting_after(last):
            last = nodes.placeholder(f"noise_{len(graph.noise) - 1}")
        last.meta["val"] = value
        node.replace_all_uses_with(last)
        nodes.erase_node(node)
    nodes.eliminate_dead_code()
    graph.module.recompile()
