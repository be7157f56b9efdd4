"""Sums of loss, metrics and gradients over the processes that take a step together."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_pyro.parallel.ranks import Ranks


@dataclass(frozen=True)
class Layout:
    """What the processes sum: shapes of the gradients by name, names of the metrics, and a zero of their type."""

    shapes: dict[str, torch.Size]
    metrics: tuple[str, ...]
    zero: Tensor


class Reducer:
    """Adds up what the processes have computed on their parts of a batch.

    Args:
        ranks: the processes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._layout: Layout | None = None

    @property
    def alone(self) -> bool:
        """Whether there is nothing to add to."""
        return self.ranks.alone

    def sum(
        self, loss: Tensor, metrics: Mapping[str, Tensor], gradients: Mapping[str, Tensor], share: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """Sum over the processes, in one message.

        Its order is that of the names, so that processes agree on it which took the step in different forms.

        Args:
            loss: of this process's part of the batch.
            metrics: sums over its data.
            gradients: by name of the parameter.
            share: what loss and gradients of this process are multiplied by.

        Returns:
            The loss, the metrics, and the gradients in the order in which they were given.
        """
        metric_names, names = sorted(metrics), sorted(gradients)
        kind = loss.dtype
        weighted, plain = self.ranks.sum(
            [loss.detach().to(kind), *(gradients[name].detach().to(kind) for name in names)],
            [metrics[name].detach().to(kind) for name in metric_names],
            weight=share,
        )
        shapes = {name: gradients[name].shape for name in gradients}
        self._layout = Layout(shapes, tuple(metric_names), weighted[0].new_zeros(()))
        summed = dict(zip(names, weighted[1:], strict=True))
        return weighted[0], dict(zip(metric_names, plain, strict=True)), [summed[name] for name in gradients]

    def sum_nothing(self) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Take part in a sum to which this process adds nothing.

        Returns:
            Loss, metrics and gradients by name, summed over the processes.

        Raises:
            ValueError: this process has not taken a step yet.
        """
        layout = self._layout
        if layout is None:
            raise ValueError("a process without a part of the first batch cannot know what to add; enlarge batch_size")
        zero = layout.zero
        nothing = {name: zero.expand(shape) for name, shape in layout.shapes.items()}
        loss, metrics, gradients = self.sum(zero, dict.fromkeys(layout.metrics, zero), nothing)
        return loss, metrics, dict(zip(nothing, gradients, strict=True))
