"""Optimizers by name: torch's own, one for all parameters, fused where torch can."""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from vae_pyro.core.registry import Registry

type Parameters = Iterable[nn.Parameter]
type Rate = Annotated[float, Field(gt=0)]
type Fraction = Annotated[float, Field(ge=0, lt=1)]
type NotNegative = Annotated[float, Field(ge=0)]

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")


@OPTIMIZERS.register("adam")
def adam(
    parameters: Parameters, *, lr: Rate = 1e-3, betas: tuple[Fraction, Fraction] = (0.9, 0.999), eps: Rate = 1e-8
) -> Optimizer:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: NotNegative = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    parameters: Parameters, *, lr: Rate = 1e-3, alpha: Fraction = 0.99, eps: Rate = 1e-8, momentum: Fraction = 0.0
) -> Optimizer:
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5 of Neural networks for machine learning)."""
    return torch.optim.RMSprop(parameters, lr=lr, alpha=alpha, eps=eps, momentum=momentum, foreach=True)


@OPTIMIZERS.register("sgd")
def sgd(parameters: Parameters, *, lr: Rate = 1e-3, momentum: Fraction = 0.0, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent, optionally with momentum (Sutskever et al. 2013)."""
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
