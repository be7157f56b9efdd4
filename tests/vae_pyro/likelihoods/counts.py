"""Likelihoods of counts, and data for them."""

from math import comb

import torch
from torch import Tensor

from vae_pyro.core.isolation import seeded
from vae_pyro.likelihoods import LIKELIHOODS, Likelihood

INFLATED = [
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
    "zero_inflated_negative_binomial:dispersion=learned",
    "zero_inflated_negative_binomial:dispersion=predicted",
]
ALL = [*INFLATED, "multinomial", "multinomial:total=mean"]
NEW = ["zero_inflated_poisson", "zero_inflated_negative_binomial", "multinomial"]
# Statistics of draws are held to so many standard errors: a failure by chance has probability 6e-5 for each.
SE = 4.0


def build(text: str, shape: tuple[int, ...] = (2, 3)) -> Likelihood:
    return LIKELIHOODS.build(LIKELIHOODS.resolve(text), shape).double()


def outputs(likelihood: Likelihood, batch: int = 5, seed: int = 1) -> Tensor:
    with seeded(seed):
        return torch.randn(batch, *likelihood.output_shape, dtype=torch.float64)


def compositions(total: int, parts: int) -> Tensor:
    """All rows of ``parts`` counts that sum to ``total``."""
    grid = torch.cartesian_prod(*[torch.arange(total + 1, dtype=torch.float64)] * parts)
    rows = grid[grid.sum(1) == total]
    assert len(rows) == comb(total + parts - 1, parts - 1)
    return rows


def topics(size: int = 400, columns: int = 12, seed: int = 3, total: float = 20.0) -> Tensor:
    """Counts of two kinds of rows, with zeros in excess."""
    with seeded(seed):
        shares = torch.softmax(2 * torch.randn(2, columns), 1)
        rate = total * shares[torch.randint(2, (size,))]
        return torch.poisson(rate) * (torch.rand(size, columns) < 0.7)
