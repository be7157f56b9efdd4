"""Steps of torch's and Pyro's optimizers as pure functions of tensors, so that they can stand in a compiled program.

A rule reads and writes the state tensors of the optimizer that it stands for, in that optimizer's own names: the two
can take turns, and checkpoints are the optimizer's own.
"""

from abc import ABC, abstractmethod
from math import sqrt
from typing import Any, ClassVar

import torch
from pyro.optim.clipped_adam import ClippedAdam as PyroClippedAdam
from torch import Tensor
from torch.optim import Optimizer

type Group = dict[str, Any]


class Update(ABC):
    """One step of one parameter.

    Attributes:
        fixed: keys of the parameter group that are constants of the program; a change of one makes a new program.
        scalars: how many numbers change from step to step.
        counts_steps: whether the optimizer keeps a count of its steps.
    """

    fixed: ClassVar[tuple[str, ...]]
    scalars: ClassVar[int]
    counts_steps: ClassVar[bool] = True

    @staticmethod
    @abstractmethod
    def supports(group: Group) -> bool:
        """Whether the rule covers the options of the group."""

    @staticmethod
    @abstractmethod
    def slots(group: Group) -> tuple[str, ...]:
        """Names of the state tensors in the shape of the parameter."""

    @staticmethod
    @abstractmethod
    def rates(group: Group, step: int) -> tuple[float, ...]:
        """The numbers that change, at ``step`` counted from 1."""

    @staticmethod
    @abstractmethod
    def apply(
        group: Group, rates: tuple[Tensor, ...], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The next parameter and state."""

    @staticmethod
    def passed(group: Group) -> None:
        """What the optimizer writes into its own group at a step; for most, nothing."""
        return


LINEAR_STATES = frozenset({"exp_avg", "momentum_buffer", "grad_avg"})
"""States that are averages of gradients, whose rounding they share."""
UPDATES: dict[type[Optimizer], type[Update]] = {}


def _flushed(moment: Tensor) -> Tensor:
    """A decaying moment, as zero once it is too small to move anything.

    Where a gradient stays at zero (a pixel that is never lit) a moment decays into the subnormal numbers, whose
    arithmetic is many times slower on a CPU. The bound is 1e8 times above them, 1.2e-30 in float32: a step from such
    a moment is below 1e-22 times the learning rate.
    """
    return torch.where(moment.abs() < torch.finfo(moment.dtype).tiny * 1e8, torch.zeros_like(moment), moment)


def _for(optimizer: type[Optimizer]) -> Any:
    def enter(update: type[Update]) -> type[Update]:
        UPDATES[optimizer] = update
        return update

    return enter


def _plain(group: Group, *flags: str) -> bool:
    """Whether none of the flags is set and no rate is a tensor."""
    return not any(group.get(flag) for flag in flags) and not isinstance(group["lr"], Tensor)


@_for(torch.optim.Adam)
class Adam(Update):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1), with torch's place for eps."""

    fixed = ("betas", "eps", "weight_decay", "decoupled_weight_decay")
    scalars = 3

    @staticmethod
    def supports(group: Group) -> bool:
        return _plain(group, "amsgrad", "maximize", "differentiable")

    @staticmethod
    def slots(group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    @staticmethod
    def rates(group: Group, step: int) -> tuple[float, ...]:
        first, second = group["betas"]
        decay = 1 - group["lr"] * group["weight_decay"]
        return group["lr"] / (1 - first**step), 1 / sqrt(1 - second**step), decay

    @staticmethod
    def apply(
        group: Group, rates: tuple[Tensor, ...], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate, correction, decay = rates
        if group["weight_decay"]:
            if group.get("decoupled_weight_decay"):
                parameter = parameter * decay
            else:
                gradient = gradient + group["weight_decay"] * parameter
        first, second = group["betas"]
        mean = _flushed(state["exp_avg"] + (gradient - state["exp_avg"]) * (1 - first))
        square = _flushed(state["exp_avg_sq"] * second + gradient * gradient * (1 - second))
        moved = parameter - rate * mean / (square.sqrt() * correction + group["eps"])
        return moved, {"exp_avg": mean, "exp_avg_sq": square}


@_for(torch.optim.AdamW)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    @staticmethod
    def apply(
        group: Group, rates: tuple[Tensor, ...], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return Adam.apply({**group, "decoupled_weight_decay": True}, rates, parameter, gradient, state)


@_for(PyroClippedAdam)
class ClippedAdam(Update):
    """Pyro's Adam with element-wise clipping and a rate that decays by ``lrd`` at each step."""

    fixed = ("betas", "eps", "weight_decay", "clip_norm", "centered_variance")
    scalars = 1

    @staticmethod
    def supports(group: Group) -> bool:
        return _plain(group)

    @staticmethod
    def slots(group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    @staticmethod
    def rates(group: Group, step: int) -> tuple[float, ...]:
        first, second = group["betas"]
        return (group["lr"] * group["lrd"] * sqrt(1 - second**step) / (1 - first**step),)

    @staticmethod
    def passed(group: Group) -> None:
        group["lr"] *= group["lrd"]

    @staticmethod
    def apply(
        group: Group, rates: tuple[Tensor, ...], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        (rate,) = rates
        gradient = gradient.clamp(-group["clip_norm"], group["clip_norm"])
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        first, second = group["betas"]
        mean = _flushed(state["exp_avg"] * first + gradient * (1 - first))
        spread = gradient - mean if group["centered_variance"] else gradient
        square = _flushed(state["exp_avg_sq"] * second + spread * spread * (1 - second))
        return parameter - rate * mean / (square.sqrt() + group["eps"]), {"exp_avg": mean, "exp_avg_sq": square}


@_for(torch.optim.SGD)
class SGD(Update):
    """Stochastic gradient descent with momentum, as torch defines it (Sutskever et al. 2013, ICML)."""

    fixed = ("momentum", "dampening", "weight_decay", "nesterov")
    scalars = 2
    counts_steps = False

    @staticmethod
    def supports(group: Group) -> bool:
        return _plain(group, "maximize", "differentiable")

    @staticmethod
    def slots(group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    @staticmethod
    def rates(group: Group, step: int) -> tuple[float, ...]:
        # torch's first momentum is the gradient itself, without dampening.
        return group["lr"], 1.0 if step == 1 else 1 - group["dampening"]

    @staticmethod
    def apply(
        group: Group, rates: tuple[Tensor, ...], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate, share = rates
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        if not group["momentum"]:
            return parameter - rate * gradient, {}
        buffer = _flushed(state["momentum_buffer"] * group["momentum"] + gradient * share)
        direction = gradient + group["momentum"] * buffer if group["nesterov"] else buffer
        return parameter - rate * direction, {"momentum_buffer": buffer}


@_for(torch.optim.RMSprop)
class RMSprop(Update):
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5 of Neural networks for machine learning), with torch's options."""

    fixed = ("alpha", "eps", "weight_decay", "momentum", "centered")
    scalars = 1

    @staticmethod
    def supports(group: Group) -> bool:
        return _plain(group, "maximize", "differentiable")

    @staticmethod
    def slots(group: Group) -> tuple[str, ...]:
        names = ["square_avg"]
        if group["momentum"]:
            names.append("momentum_buffer")
        if group["centered"]:
            names.append("grad_avg")
        return tuple(names)

    @staticmethod
    def rates(group: Group, step: int) -> tuple[float, ...]:
        return (group["lr"],)

    @staticmethod
    def apply(
        group: Group, rates: tuple[Tensor, ...], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        (rate,) = rates
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        alpha = group["alpha"]
        square = _flushed(state["square_avg"] * alpha + gradient * gradient * (1 - alpha))
        new = {"square_avg": square}
        if group["centered"]:
            new["grad_avg"] = state["grad_avg"] + (gradient - state["grad_avg"]) * (1 - alpha)
            square = square - new["grad_avg"] * new["grad_avg"]
        direction = gradient / (square.sqrt() + group["eps"])
        if group["momentum"]:
            direction = new["momentum_buffer"] = state["momentum_buffer"] * group["momentum"] + direction
        return parameter - rate * direction, new
