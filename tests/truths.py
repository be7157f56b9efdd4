"""Closed-form models: probabilistic PCA, with its evidence, posterior, optimum, and hand-written Pyro programs.

``z ~ N(0, I)``, ``x | z ~ N(W z + mu, s2 I)``, x in R^d, z in R^q (Tipping & Bishop 1999).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from analysis.posterior.joint import LogJoint
from vae_pyro import VAE, Split
from vae_pyro.core.isolation import seeded
from vae_pyro.densities.pair import as_pair

type Program = Callable[..., Any]


def joint_of(pair: tuple[Program, Program], x: Tensor) -> LogJoint:
    """log p(x, z) of two programs at some data."""
    return LogJoint(as_pair(pair).programs(Split(x)), x)


@dataclass(frozen=True)
class PPCA:
    """Probabilistic PCA with known parameters, float64."""

    weight: Tensor  # (d, q)
    mean: Tensor  # (d,)
    variance: float

    @property
    def covariance(self) -> Tensor:
        """C = W W' + s2 I."""
        return self.weight @ self.weight.T + self.variance * torch.eye(len(self.mean), dtype=torch.float64)

    @property
    def precision_matrix(self) -> Tensor:
        """M = W' W + s2 I."""
        q = self.weight.shape[1]
        return self.weight.T @ self.weight + self.variance * torch.eye(q, dtype=torch.float64)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), shape (datum,)."""
        return torch.distributions.MultivariateNormal(self.mean, self.covariance).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (datum, q) and covariance (q, q) of p(z | x)."""
        inverse = torch.linalg.inv(self.precision_matrix)
        return (x - self.mean) @ self.weight @ inverse, self.variance * inverse

    @property
    def mean_field_scale(self) -> Tensor:
        """Standard deviations of the best diagonal guide, (q,)."""
        return (self.variance / self.precision_matrix.diagonal()).sqrt()

    @property
    def mean_field_gap(self) -> float:
        """log p(x) - ELBO of the best diagonal guide, the same for every x."""
        matrix = self.precision_matrix
        return float(0.5 * (matrix.diagonal().log().sum() - torch.logdet(matrix)))

    def sample(self, size: int, seed: int) -> Tensor:
        """Draw x, shape (size, d)."""
        with seeded(seed):
            z = torch.randn(size, self.weight.shape[1], dtype=torch.float64)
            noise = torch.randn(size, len(self.mean), dtype=torch.float64)
        return z @ self.weight.T + self.mean + self.variance**0.5 * noise

    def hidden(self, seen: int, x: Tensor) -> tuple[tuple[Program, Program], "PPCA", Tensor]:
        """Programs with only the first elements of x observed, the truth of these alone, and the mask."""
        mask = torch.ones_like(x, dtype=torch.bool)
        mask[:, seen:] = False
        part = PPCA(self.weight[:seen], self.mean[:seen], self.variance)
        _, guide = part.programs()
        return (self.programs()[0], lambda x, mask=None: guide(x[:, :seen])), part, mask

    def programs(self, *, diagonal: bool = False, stretch: float = 1.0) -> tuple[Program, Program]:
        """Hand-written model and guide that keep the contract; the guide is exact, or the best diagonal one.

        Args:
            diagonal: the best mean-field guide.
            stretch: multiplies the guide's standard deviations, which makes it wrong.
        """

        def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
            with pyro.plate("data", size if x is None else len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros_like(self.weight[0]), 1.0).to_event(1))
                loc = z @ self.weight.T + self.mean
                element = dist.Normal(loc, torch.as_tensor(self.variance, dtype=loc.dtype).sqrt())
                if mask is not None:
                    element = element.mask(mask)
                return pyro.sample("x", element.to_event(1), obs=x)

        def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
            loc, covariance = self.posterior(x)
            if diagonal:
                posterior = dist.Normal(loc, stretch * self.mean_field_scale).to_event(1)
            else:
                posterior = dist.MultivariateNormal(loc, scale_tril=stretch * torch.linalg.cholesky(covariance))
            with pyro.plate("data", len(x)):
                return pyro.sample("z", posterior)

        return model, guide


def example(d: int = 5, q: int = 2, variance: float = 0.5, seed: int = 0) -> PPCA:
    """A pPCA with a random, not orthogonal W, so that its posterior is correlated."""
    with seeded(seed):
        weight = torch.randn(d, q, dtype=torch.float64)
        weight[:, 1:] += weight[:, :1]  # oblique columns, which a mean-field guide cannot follow
        return PPCA(weight, torch.randn(d, dtype=torch.float64), variance)


def maximum_likelihood(x: Tensor, q: int) -> PPCA:
    """The optimum: W = U_q (L_q - s2 I)^(1/2), s2 the mean of the other eigenvalues of the 1/N covariance."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    variance = float(values[q:].mean())
    return PPCA(vectors[:, :q] * (values[:q] - variance).clamp(min=0).sqrt(), mean, variance)


def fixed_variance_optimum(x: Tensor, q: int, variance: float, beta: float = 1.0) -> PPCA:
    """The beta-VAE optimum at a fixed s2: W with s2 replaced by beta s2 (Lucas et al. 2019)."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    return PPCA(vectors[:, :q] * (values[:q] - beta * variance).clamp(min=0).sqrt(), mean, variance)


def set_exact(vae: VAE, truth: PPCA, stretch: float = 1.0) -> None:
    """Weights with which a linear VAE of full-rank posterior has ``truth`` as decoder and its posterior as guide.

    Args:
        vae: changed in place.
        truth: whose variance the VAE states.
        stretch: multiplies the guide's standard deviations, which makes it wrong.
    """
    q = truth.weight.shape[1]
    inverse = torch.linalg.inv(truth.precision_matrix)
    tril = stretch * torch.linalg.cholesky(truth.variance * inverse)
    head, lower = vae.guide.posterior.normal.linear, vae.guide.posterior.lower
    with torch.no_grad():
        vae.model.decoder.layers[-1].weight.copy_(truth.weight)
        vae.model.decoder.layers[-1].bias.copy_(truth.mean)
        head.weight.zero_()
        head.weight[:q] = inverse @ truth.weight.T
        head.bias[:q] = -inverse @ truth.weight.T @ truth.mean
        head.bias[q:] = tril.diagonal().log()
        lower.weight.zero_()
        lower.bias.copy_(tril[*torch.tril_indices(q, q, -1)])


def normal_kl(loc: Tensor, scale: Tensor) -> Tensor:
    """KL(N(loc, scale^2) || N(0, I)) summed over the last dimension."""
    return 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)


LOG_2PI = log(2 * pi)
