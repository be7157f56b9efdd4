"""What a traced program takes for granted of its parameters, compared at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyro
from torch import Tensor


@dataclass
class _Row:
    name: str
    leaf: Tensor
    in_store: bool
    used: bool
    gradient: Tensor | None
    version: int


class Parameters:
    """The leaves of a program, where they stand, and the gradients that they hold between steps.

    Args:
        names: of the unconstrained parameters.
        leaves: the parameters.
        used: which have a gradient in the program.
    """

    def __init__(self, names: Sequence[str], leaves: Sequence[Tensor], used: Sequence[bool]) -> None:
        store = pyro.get_param_store()._params
        self._rows = [
            _Row(name, leaf, store.get(name) is leaf, one, leaf.grad, -1 if leaf.grad is None else leaf.grad._version)
            for name, leaf, one in zip(names, leaves, used, strict=True)
        ]

    @property
    def outdated(self) -> bool:
        """Whether the parameter store has been cleared or loaded, or parameters have been frozen or given hooks."""
        store = pyro.get_param_store()._params
        return any(
            (row.in_store and store.get(row.name) is not row.leaf)
            or not row.leaf.requires_grad
            or bool(row.leaf._backward_hooks)
            for row in self._rows
        )

    @property
    def gradients_are_free(self) -> bool:
        """Whether no gradient stands in the parameters that the next step of `pyro.infer.SVI` would add to."""
        for row in self._rows:
            gradient = row.leaf.grad
            if gradient is row.gradient and (gradient is None or gradient._version == row.version):
                continue
            if gradient is not None:
                if bool(gradient.any()):
                    return False
                row.version = gradient._version
            row.gradient = gradient
        return True

    @property
    def gained_gradient(self) -> bool:
        """Whether a parameter that the program does not use holds a gradient now, which moves it with momentum."""
        return any(not row.used and row.leaf.grad is not None for row in self._rows)
