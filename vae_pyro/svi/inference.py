"""What is optimised: two Pyro programs, a loss, and how their arguments and matrix products are treated."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vae_pyro.compilation.capture import Loss, Prepare, PyroProgram, capture, differentiable_loss, find_leaves
from vae_pyro.compilation.graph import Graph
from vae_pyro.compilation.modes import ProductsIn


@dataclass(frozen=True)
class Inference:
    """One problem of variational inference.

    Attributes:
        model: Pyro model.
        guide: Pyro guide.
        loss: a Pyro `ELBO`, or ``loss(model, guide, *args, **kwargs)``.
        prepare: maps the arguments of a step to ``(args, kwargs)`` of the programs.
        autocast: type of the networks' matrix products.
    """

    model: PyroProgram
    guide: PyroProgram
    loss: Loss
    prepare: Prepare | None = None
    autocast: torch.dtype | None = None

    @cached_property
    def _modules(self) -> list[nn.Module]:
        return [module for program in (self.model, self.guide) for module in _modules_of(program)]

    @property
    def modes(self) -> tuple[bool, ...]:
        """Training modes of the programs' modules."""
        return tuple([module.training for module in self._modules])

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the programs, from those of a step."""
        if self.prepare is None:
            return args, kwargs
        with torch.no_grad():
            return self.prepare(*args, **kwargs)

    def products(self) -> Any:
        """A context in which matrix products have the type that was asked for."""
        return nullcontext() if self.autocast is None else ProductsIn(self.autocast)

    def differentiable_loss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The stock loss with its gradient, for the arguments of a step.

        Raises:
            CaptureError: it has no differentiable form.
        """
        with self.products():
            return differentiable_loss(self.loss, self.model, self.guide, *self.prepared(args, kwargs))

    def find_leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Unconstrained parameters by name, after a run that makes those that are made lazily."""
        with self.products():
            return find_leaves(self.loss, self.model, self.guide, *self.prepared(args, kwargs))

    def capture(self, leaves: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        """Loss, metrics and gradient as a graph, for the arguments of a step.

        Raises:
            CaptureError: see `vae_pyro.compilation.capture.capture`.
        """
        flat, spec = pytree.tree_flatten((args, kwargs))
        parameters = list(leaves.values())
        return capture(
            self.loss, self.model, self.guide, parameters, flat, spec, prepare=self.prepare, autocast=self.autocast
        )

    def metrics(self) -> dict[str, Tensor]:
        """The metrics that the loss has kept of its last evaluation."""
        return dict(getattr(self.loss, "metrics", {}))

    def publish(self, metrics: dict[str, Tensor]) -> None:
        """Let the loss keep the metrics of a step, as it does after one of its own."""
        self.loss.metrics = metrics  # type: ignore[union-attr]


def _modules_of(program: Any) -> list[nn.Module]:
    owner = program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
    return list(owner.modules()) if isinstance(owner, nn.Module) else []


@contextmanager
def generators_kept() -> Iterator[None]:
    """Run, and put torch's generators back to where they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


def restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    """Undo what running statistics have taken in; tensors that have not changed, which may be read-only, are left."""
    for tensor, value in zip(tensors, values, strict=True):
        if not torch.equal(tensor, value):
            tensor.copy_(value)
