"""A flat graph of tensor operations whose constants and random draws are inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any, cast

import torch
from torch import Tensor, fx

_aten = torch.ops.aten
# Rules of thumb: Inductor's time without its cache, torch's time for an operation on small tensors, and the memory's
# bandwidth. Measured on a 2-core AMD EPYC, torch 2.15: 16 s for the 240 operators of a 784-400-20 network.
_COMPILE_SECONDS, _COMPILE_SECONDS_EACH = 4.0, 0.05
_DISPATCH_SECONDS, _BYTES_PER_SECOND = 4e-6, 1e10
# Of the compiler's time, what one run has to repay: the program is kept, and found by those that follow.
_SHARE_CHARGED = 0.5


def compile_seconds(operators: int) -> float:
    """Seconds of compiling a graph of so many operators, by rule of thumb."""
    return _COMPILE_SECONDS + _COMPILE_SECONDS_EACH * operators


def charged(operators: int) -> float:
    """Of these seconds, what one run has to repay."""
    return _SHARE_CHARGED * compile_seconds(operators)


class CaptureError(RuntimeError):
    """The function cannot be written as a static graph; the message says why."""


class ValueDependentError(CaptureError):
    """The structure of the function depends on the value of a tensor."""


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
        """Memory for one draw."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)

    def fill(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw into ``out``, from torch's generator unless another is given."""
        filled: Tensor = getattr(out, self.method)(*self.arguments, generator=generator)
        return filled


# The operators after mutations have been removed, and the method that draws the same numbers.
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
    """A traced function with everything that it reads.

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

    def written_constants(self) -> list[bool]:
        """For each constant, whether the graph writes to it."""
        nodes = self.module.graph.nodes
        inputs = [node for node in nodes if node.op == "placeholder"]
        first = self.num_leaves + self.num_batch
        written = {node.args[0] for node in nodes if node.target is _aten.copy_.default}
        return [node in written for node in inputs[first : first + len(self.constants)]]

    @cached_property
    def break_even(self) -> int:
        """Steps after which compiling has paid for itself, by rule of thumb; the same on every machine."""
        return self.steps_to_repay(charged(len(self._calls)))

    def steps_to_repay(self, seconds: float) -> int:
        """Steps that save so many seconds once they are compiled, by rule of thumb.

        Compiling saves the dispatch of each operator at every step, and half of what they read and write.
        """
        values = [node.meta.get("val") for node in self._calls]
        moved = sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
        return ceil(seconds / (_DISPATCH_SECONDS * max(len(values), 1) + moved / _BYTES_PER_SECOND / 2))

    @property
    def _calls(self) -> list[fx.Node]:
        return [node for node in self.module.graph.nodes if node.op == "call_function"]

    def split(self, outputs: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """Loss, metrics by name, and gradients of the leaves that are used."""
        loss, rest = outputs[0], list(outputs[1:])
        count = len(self.metrics)
        return loss, dict(zip(self.metrics, rest[:count], strict=True)), rest[count:]


def lift_constants(module: fx.GraphModule, mode: Any) -> list[Tensor]:
    """Turn tensors that a graph holds by reference into inputs after the others.

    Args:
        module: changed in place.
        mode: the fake tensor mode that it was traced in.

    Raises:
        CaptureError: the graph holds something that is not a tensor.
    """
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


def lift_noise(graph: Graph) -> None:
    """Turn draws whose distribution is fixed into inputs after the others, and name those that have to stay.

    Inputs are drawn before the graph runs. All draws come from one generator, so that behind a draw whose distribution
    depends on the graph's values every other has to stay inside as well.
    """
    nodes = graph.module.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    for node in list(nodes.nodes):
        if node.op != "call_function":
            continue
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        if node.target not in _NOISE or graph.random_inside:
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
