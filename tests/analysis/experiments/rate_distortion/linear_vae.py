"""The linear VAE, whose rate and distortion at every beta have a closed form."""

from dataclasses import replace
from math import log, pi
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from tests.truths import Program, fixed_variance_optimum

type Array = np.ndarray[Any, Any]


VARIANCE = 0.3


BETAS = (0.5, 1.0, 2.0, 4.0)


DRAWS = 60


def linear(x: Tensor, q: int, beta: float) -> tuple[Program, Program]:
    """The linear beta-VAE at its optimum: s2 becomes beta s2 in W and in the guide, and stays s2 in p(x | z)."""
    truth = fixed_variance_optimum(x, q, VARIANCE, beta)
    model, _ = truth.programs()
    guiding = replace(truth, variance=beta * VARIANCE)
    _, covariance = guiding.posterior(x)
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()))  # columns of W are orthogonal

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            posterior = dist.Normal(guiding.posterior(x)[0], covariance.diagonal().sqrt())
            return pyro.sample("z", posterior.to_event(1))

    return model, guide


def exact(spectrum: Array, q: int, beta: float) -> tuple[float, float]:
    """Rate and distortion of `linear`: latent i costs 1/2 log(l_i / (beta s2)), and leaves beta s2 of l_i."""
    values, water = np.sort(spectrum)[::-1], beta * VARIANCE
    active = (values > water) & (np.arange(len(values)) < q)
    left = np.where(active, water, values).sum()
    rate = 0.5 * np.log(values[active] / water).sum()
    return rate, len(values) / 2 * log(2 * pi * VARIANCE) + left / (2 * VARIANCE)
