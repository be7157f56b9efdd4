"""Reductions of importance weights that objectives share."""

from math import log

import torch
from torch import Tensor


def log_mean_exp(value: Tensor, dim: int = 0) -> Tensor:
    """``log mean exp(value)`` over one dimension."""
    return torch.logsumexp(value, dim) - log(value.shape[dim])


def normalized_weights(log_weight: Tensor, dim: int = 0) -> Tensor:
    """Weights that sum to one over particles, constants of the gradient; shape of ``log_weight``."""
    return torch.softmax(log_weight.detach(), dim)
