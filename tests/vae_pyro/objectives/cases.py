"""Pairs and checks that the tests of objectives share."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from tests.truths import PPCA, example, normal_kl
from vae_pyro import VAE, LogDensities, VAEConfig, log_densities
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.objectives import OBJECTIVES


def small(**options: Any) -> tuple[VAE, torch.Tensor]:
    options = {"prior": "mixture", **options}
    vae = VAE(VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian", **options)).double()
    with seeded(0):
        return vae, torch.randn(5, 6, dtype=torch.float64)


class Rows:
    """pPCA with a diagonal guide; every row of data has parameters of its own, so that rows are replicates.

    ``exact`` makes q = 1 (or an orthogonal W) exact; ``shift`` and ``stretch`` spoil the guide.
    """

    def __init__(self, truth: PPCA, x: Tensor, *, shift: float = 0.3, stretch: float = 1.2) -> None:
        loc, _ = truth.posterior(x)
        self.truth, self.x = truth, x
        self.mean = truth.mean.expand(x.shape).clone().requires_grad_()
        self.loc = (loc + shift).clone().requires_grad_()
        self.log_scale = (stretch * truth.mean_field_scale).log().expand(loc.shape).clone().requires_grad_()
        self.of_guide, self.of_model = [self.loc, self.log_scale], [self.mean]

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.loc), 1.0).to_event(1))
            loc = z @ self.truth.weight.T + self.mean
            pyro.sample("x", dist.Normal(loc, self.truth.variance**0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))

    def densities(self, num_particles: int, seed: int = 1) -> LogDensities:
        with isolated(seed), torch.no_grad():
            return log_densities(self.model, self.guide, self.x, num_particles=num_particles)

    def gradients(self, choice: str, seed: int = 1, weight: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, and its gradients in every row: guide ``(row, 2 q)`` and model ``(row, d)``."""
        objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
        objective.kl_weight.fill_(weight)
        with isolated(seed):
            loss = objective.differentiable_loss(self.model, self.guide, self.x)
        found = torch.autograd.grad(loss, [*self.of_guide, *self.of_model])
        return loss.detach(), torch.cat(found[:2], -1), found[2]


def orthogonal(d: int = 5, q: int = 2, variance: float = 0.5) -> PPCA:
    """A pPCA whose posterior is diagonal, so that the guide of `Rows` can be exact."""
    truth = example(d, q, variance)
    return PPCA(torch.linalg.qr(truth.weight).Q * torch.linspace(2.0, 1.0, q).double(), truth.mean, variance)


def rows(truth: PPCA, count: int, **options: float) -> Rows:
    """Replicates of one datum."""
    return Rows(truth, truth.sample(1, seed=0).expand(count, -1).clone(), **options)


def standard_error(value: Tensor) -> Tensor:
    return value.std(0) / len(value) ** 0.5


def assert_same_mean(a: Tensor, b: Tensor, *, errors: float = 5.0) -> None:
    """Means over independent rows agree. At 5 standard errors an entry fails by chance once in 1.7 million runs."""
    error = (standard_error(a) ** 2 + standard_error(b) ** 2).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= errors * error).all(), (a.mean(0), b.mean(0), error)


MULTI_SAMPLE = [
    "stl",
    "iwae",
    "miwae_missing",
    "dreg",
    "ciwae",
    "miwae",
    "piwae",
    "renyi",
    "renyi:alpha=max",
    "rws",
    "tvo",
]


def kl_by_dimension(vae: VAE, x: Tensor) -> Tensor:
    """KL(q(z_j | x) || N(0, 1)), shape (datum, dimension), by hand."""
    with torch.no_grad():
        posterior = vae.encode(x)
        return normal_kl(posterior.mean.unsqueeze(-1), posterior.variance.sqrt().unsqueeze(-1))


def loss_and_terms(choice: str, vae: VAE, x: Tensor, seed: int = 1) -> tuple[float, float, float]:
    objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
    with isolated(seed):
        loss = objective.loss(vae.model, vae.guide, x)
    return loss, float(objective.reconstruction), float(objective.kl)


PAIRS = [
    {"prior": "normal", "posterior": "mean_field"},
    {"prior": "mixture:components=3", "posterior": "full_rank"},
    {"prior": "vamp:components=4", "posterior": "mean_field"},
    {"prior": "normal", "posterior": "flow"},
]
