"""A traced loss and gradient with what they read: the program that every form of a compiled step runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from vae_pyro.compilation.capture import NumberInput, Reading
from vae_pyro.compilation.graph import Graph
from vae_pyro.compilation.inductor import compile_checked, rounding_of
from vae_pyro.compilation.source import Source
from vae_pyro.svi.step_graphs import only

type Metrics = dict[str, Tensor]
type Run = Callable[[list[Tensor]], Any]


def interpreted(module: fx.GraphModule) -> Run:
    """A graph as a function of one list of inputs, run operator by operator."""
    return lambda inputs: module(*inputs)


@dataclass(frozen=True)
class Program:
    """Loss, metrics and gradient for one combination of arguments.

    Attributes:
        graph: see `vae_pyro.compilation.capture.capture`.
        names: of the unconstrained parameters.
        leaves: the unconstrained parameters; for an ensemble ``(member, *shape)``.
        constants: what the graph reads beside parameters, batch and noise.
        positions: of the inputs among the flattened arguments, tensors and numbers.
        plain: whether the arguments are tensors, and nothing else.
        numbers: places outside of the programs whose numbers are inputs.
        noise: memory for the noise of a step.
        run: the graph, interpreted or compiled.
        members: size of the ensemble; ``None`` for a single run.
        own: which inputs between parameters and noise have the members as their first dimension.
    """

    graph: Graph
    names: Sequence[str]
    leaves: Sequence[Tensor]
    constants: list[Tensor]
    positions: Sequence[int]
    plain: bool
    numbers: Sequence[Reading]
    noise: Sequence[Tensor]
    run: Run
    members: int | None = None
    own: Sequence[bool] = ()

    @classmethod
    def traced(
        cls, graph: Graph, leaves: Mapping[str, Tensor], flat: Sequence[Any], numbers: Sequence[Reading] = ()
    ) -> Self:
        """The program of one run.

        Args:
            graph: see the attribute.
            leaves: unconstrained parameters by name, in the order of the graph's inputs.
            flat: flattened arguments that the graph was captured with.
            numbers: likewise.
        """
        positions = [number for number, item in enumerate(flat) if isinstance(item, Tensor | NumberInput)]
        return cls(
            graph,
            list(leaves),
            list(leaves.values()),
            graph.constants,
            positions,
            not numbers and all(isinstance(item, Tensor) for item in flat),
            numbers,
            [noise.empty() for noise in graph.noise],
            interpreted(graph.module),
        )

    def for_members(self, stack: Sequence[Tensor], own_batches: bool, own_constants: Mapping[int, Tensor]) -> Self:
        """The same program of all members of an ensemble.

        Args:
            stack: parameters, ``(member, *shape)``.
            own_batches: each member has a batch of its own, ``(member, *shape of a batch)``.
            own_constants: those of the graph's constants that members have each for themselves, ``(member, *shape)``,
                by the identity of the constant that they stand for.
        """
        members, graph = len(stack[0]), self.graph
        return replace(
            self,
            leaves=list(stack),
            constants=[own_constants.get(id(constant), constant) for constant in graph.constants],
            noise=[noise.empty().expand(members, *noise.shape).clone() for noise in graph.noise],
            members=members,
            own=[own_batches] * graph.num_batch + [id(constant) in own_constants for constant in graph.constants],
        )

    @property
    def source(self) -> Source:
        """The graph, by which its compiled program is found."""
        return Source.of(self.graph.module)

    @cached_property
    def written(self) -> list[bool]:
        """Which of the constants the programs write to, such as running statistics."""
        return self.graph.written_constants()

    @cached_property
    def used(self) -> list[Tensor]:
        """Leaves that the loss depends on, in the order of the gradients."""
        return only(self.leaves, self.graph.used)

    @cached_property
    def used_names(self) -> list[str]:
        """Their names."""
        return only(self.names, self.graph.used)

    def tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """What a step gives the graph beside parameters, constants and noise, in the order of its inputs."""
        if self.plain and not kwargs and len(args) == len(self.positions):
            return list(args)
        flat = pytree.tree_leaves((args, kwargs))
        given = [flat[position] for position in self.positions]
        given += [reading.get() for reading in self.numbers]
        like = self.leaves[0]
        return [item if isinstance(item, Tensor) else NumberInput(item).tensor(like) for item in given]

    def draw(self, generators: Sequence[torch.Generator] | None = None) -> Sequence[Tensor]:
        """Noise of the next step in the order of the stock step, from torch's generator, or from each member's own."""
        for noise, out in zip(self.graph.noise, self.noise, strict=True):
            if generators is None:
                noise.fill(out)
        for number, generator in enumerate(generators or ()):
            for noise, out in zip(self.graph.noise, self.noise, strict=True):
                noise.fill(out[number], generator)
        return self.noise

    def gradients(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> tuple[Tensor, Metrics, list[Tensor]]:
        """Loss, metrics and gradients of the leaves that are used."""
        with torch.no_grad():
            return self.graph.split(self.run([*self.leaves, *tensors, *self.constants, *noise]))

    def compiled(self, tensors: Sequence[Tensor], noise: Sequence[Tensor]) -> Self:
        """The program run by Inductor.

        Args:
            tensors: a batch.
            noise: of a step.

        Raises:
            CompileError: the compiler failed, or its result disagrees with the graph.
        """
        inputs = [*self.leaves, *tensors, *self.constants, *noise]
        _, metrics, gradients = self.gradients(tensors, noise)
        floors = [0.0] * (1 + len(metrics)) + [rounding_of(gradients)] * len(gradients) + [0.0] * len(inputs)
        return replace(self, run=compile_checked(self.source, inputs, floors=floors))
