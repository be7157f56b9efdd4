"""The stock step, and the optimizer's own step: what is taken where no compiled form can be, and why."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer.util import zero_grads
from pyro.optim import PyroOptim
from pyro.optim.optim import _load_state_dict
from torch import Tensor, nn
from torch.optim import Optimizer

from vae_pyro.compilation.capture import leaves_of
from vae_pyro.svi.inference import Inference
from vae_pyro.svi.optimizer_state import Slot, slots_of
from vae_pyro.svi.program import Metrics
from vae_pyro.svi.reducer import Reducer

_HERE = str(Path(__file__).parent)


class SVIFallbackWarning(UserWarning):
    """A step runs in a slower form than was asked for; the message says why."""


class Fallbacks:
    """Reasons for slower steps, each said once."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    @property
    def said(self) -> list[str]:
        """The reasons so far."""
        return list(self._said.values())

    def say(self, message: str, once: str | None = None) -> None:
        """Warn of a reason; ``once`` identifies it where its message differs from time to time."""
        if (once or message) not in self._said:
            self._said[once or message] = message
            warnings.warn(f"CompiledSVI: {message}", SVIFallbackWarning, skip_file_prefixes=(_HERE,))


class TorchOptimizer(PyroOptim):
    """A torch optimizer in the place of a Pyro one.

    Raises:
        ValueError: it is no torch optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"optim is a Pyro or a torch optimizer, got {type(optimizer).__name__}")
        super().__init__(type(optimizer), {})
        self.optimizer = optimizer

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.optimizer.step()


class StockOptimizer:
    """The user's optimizer, which takes its own steps.

    Args:
        optimizer: a Pyro optimizer, or a torch optimizer that holds the parameters.
        clip_norm: largest Euclidean norm of the whole gradient; ``None`` does not clip.
    """

    def __init__(self, optimizer: PyroOptim | Optimizer, clip_norm: float | None) -> None:
        self.optimizer, self.clip_norm = optimizer, clip_norm

    @property
    def name(self) -> str:
        """Of its class."""
        one = self.optimizer
        return one.pt_optim_constructor.__name__ if isinstance(one, PyroOptim) else type(one).__name__

    @property
    def takes_all(self) -> bool:
        """Whether it is to be called with all parameters, and not with those that have a gradient."""
        return isinstance(self.optimizer, PyroOptim)

    def slots(self, leaves: Sequence[Tensor]) -> list[Slot] | None:
        """Where its state stands for each leaf; ``None`` where no rule covers it or its options."""
        if isinstance(self.optimizer, PyroOptim):
            for leaf in leaves:
                if leaf not in self.optimizer.optim_objs:
                    _make_optimizer(self.optimizer, leaf)
        return slots_of(self.optimizer, list(leaves))

    def step_on(self, leaves: Sequence[Tensor], gradients: Sequence[Tensor], loss: Tensor) -> Metrics:
        """Step with given gradients; with a loss that is not finite, none."""
        if not bool(torch.isfinite(loss)):
            return {}
        held: list[Tensor | None] = [leaf.grad for leaf in leaves]
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        metrics = self.step(leaves)
        for leaf, kept in zip(leaves, held, strict=True):
            leaf.grad = kept
        return metrics

    def step(self, leaves: Sequence[Tensor]) -> Metrics:
        """Step with the gradients that the leaves have.

        Returns:
            The norm of the gradient, where it is clipped; where that is not finite, no step is taken.
        """
        metrics: Metrics = {}
        if self.clip_norm is not None:
            norm = metrics["gradient_norm"] = nn.utils.clip_grad_norm_(leaves, self.clip_norm).detach()
            if not bool(torch.isfinite(norm)):
                return metrics
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer(leaves)
        else:
            self.optimizer.step()
        return metrics

    def clear(self, leaves: Sequence[Tensor]) -> None:
        """Take the gradients away: zeros in their place for a Pyro optimizer, as `pyro.infer.SVI` leaves them."""
        if self.takes_all:
            zero_grads(leaves)
            return
        assert isinstance(self.optimizer, Optimizer)
        held = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for leaf in (*leaves, *held):
            leaf.grad = None


class StockRun(NamedTuple):
    """What a run of the stock loss gives; gradients are those of the leaves.

    Attributes:
        loss: as the loss gives it.
        metrics: that the loss has kept.
        leaves: unconstrained parameters that the programs use, by name.
    """

    loss: Any
    metrics: Metrics
    leaves: dict[str, Tensor]

    @property
    def finite(self) -> bool:
        """Whether the loss is."""
        values = self.loss if isinstance(self.loss, tuple) else (self.loss,)
        return all(bool(torch.isfinite(torch.as_tensor(value))) for value in values)


class StockStep:
    """The step of `pyro.infer.SVI`, in its two halves.

    Args:
        inference: programs and loss.
        optimizer: which moves the parameters.
        reducer: of the processes that take the step together.
        skip_nonfinite: leave the parameters as they are where the loss is not finite.
    """

    def __init__(
        self, inference: Inference, optimizer: StockOptimizer, reducer: Reducer, *, skip_nonfinite: bool
    ) -> None:
        self.inference, self.optimizer, self.reducer = inference, optimizer, reducer
        self.skip_nonfinite = skip_nonfinite

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StockRun:
        """The loss, with its gradient added to the parameters'."""
        args, kwargs = self.inference.prepared(args, kwargs)
        with pyro.poutine.trace(param_only=True) as captured, self.inference.products():
            loss = self.inference.loss_and_grads(self.inference.model, self.inference.guide, *args, **kwargs)
        return StockRun(loss, self.inference.metrics(), leaves_of(captured.trace))

    def finish(self, run: StockRun, share: float) -> tuple[Any, Metrics]:
        """Move the parameters by the gradients of a run; its loss and metrics."""
        loss, metrics, found = run
        leaves = [leaf for leaf in found.values() if leaf.grad is not None or self.optimizer.takes_all]
        if not self.reducer.alone:
            gradients = {name: leaf.grad for name, leaf in found.items() if leaf.grad is not None}
            loss = torch.as_tensor(loss, device=leaves[0].device).to(leaves[0].dtype)
            loss, metrics, summed = self.reducer.sum(loss, metrics, gradients, share)
            for name, gradient in zip(gradients, summed, strict=True):
                found[name].grad = gradient
        if not self.skip_nonfinite or StockRun(loss, metrics, found).finite:
            metrics = metrics | self.optimizer.step(leaves)
        self.optimizer.clear(leaves)
        return loss, metrics

    def take(self, args: tuple[Any, ...], kwargs: dict[str, Any], share: float) -> tuple[Any, Metrics]:
        """Loss before the step, as the loss gives it, and its metrics."""
        return self.finish(self.run(args, kwargs), share)


def _make_optimizer(optim: PyroOptim, leaf: Tensor) -> None:
    """What a Pyro optimizer does when it first steps on a parameter, without the step."""
    optim.optim_objs[leaf] = optim._get_optim(leaf)
    optim.grad_clip[leaf] = optim._get_grad_clip(leaf)
    name = pyro.get_param_store().param_name(leaf)
    state = optim._state_waiting_to_be_consumed.pop(name, None)
    if state is not None:
        _load_state_dict(optim.optim_objs[leaf], state)
