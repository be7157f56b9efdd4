"""What is optimised: two Pyro programs, a loss, and how their arguments and matrix products are treated."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vae_pyro.compilation.capture import Loss, Prepare, PyroProgram, Reading, Subject, capture, find_leaves
from vae_pyro.compilation.graph import Graph
from vae_pyro.compilation.modes import Decisions, ProductsIn


@dataclass(frozen=True)
class Inference:
    """One problem of variational inference.

    Attributes:
        model: Pyro model.
        guide: Pyro guide.
        loss: a Pyro `ELBO`, or ``loss(model, guide, *args, **kwargs)``.
        loss_and_grads: what `pyro.infer.SVI` runs for it.
        prepare: maps the arguments of a step to ``(args, kwargs)`` of the programs.
        autocast: type of the networks' matrix products.
        checks: programs check supports; a step that fails a check can be taken back.
    """

    model: PyroProgram
    guide: PyroProgram
    loss: Loss
    loss_and_grads: Callable[..., Any]
    prepare: Prepare | None = None
    autocast: torch.dtype | None = None
    checks: bool = True

    @property
    def roots(self) -> dict[str, Any]:
        """Everything that is called, by the names that messages give it."""
        functions = {"model": self.model, "guide": self.guide, "loss": self.loss, "prepare": self.prepare}
        return {**functions, "loss_and_grads": self.loss_and_grads}

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the programs, from those of a step."""
        if self.prepare is None:
            return args, kwargs
        with torch.no_grad():
            return self.prepare(*args, **kwargs)

    def products(self) -> Any:
        """A context in which matrix products have the type that was asked for."""
        return nullcontext() if self.autocast is None else ProductsIn(self.autocast)

    def find_leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Unconstrained parameters by name, after a run that makes those that are made lazily."""
        with self.products():
            return find_leaves(self.loss, self.model, self.guide, *self.prepared(args, kwargs))

    def capture(
        self,
        leaves: Sequence[Tensor],
        flat: Sequence[Any],
        spec: Any,
        numbers: Sequence[Reading],
        decisions: Decisions | None,
    ) -> Graph:
        """Loss, metrics and gradient as a graph.

        Args:
            leaves: unconstrained parameters.
            flat: flattened arguments of a step, see `vae_pyro.compilation.capture.capture`.
            spec: how they were flattened.
            numbers: see `vae_pyro.compilation.capture.capture`.
            decisions: likewise.

        Raises:
            CaptureError: see `vae_pyro.compilation.capture.capture`.
        """
        functions = self.loss_and_grads, self.model, self.guide
        subject = Subject(*functions, self.loss, self.prepare, self.autocast, self.checks)
        return capture(subject, leaves, flat, spec, numbers=numbers, decisions=decisions)

    def metrics(self) -> dict[str, Tensor]:
        """The metrics that the loss has kept of its last evaluation."""
        return dict(getattr(self.loss, "metrics", {}))

    def publish(self, metrics: dict[str, Tensor]) -> None:
        """Let the loss keep the metrics of a step, as it does after one of its own."""
        if hasattr(self.loss, "metrics"):
            self.loss.metrics = metrics


@contextmanager
def generators_kept() -> Iterator[None]:
    """Run, and put torch's generators back to where they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


def restore(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Undo what running statistics have taken in; tensors that have not changed, which may be read-only, are left."""
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            if not torch.equal(tensor, value):
                tensor.copy_(value)
