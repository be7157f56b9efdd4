"""Reductions of importance weights over particles, streamed: log p(x), its error, effective sample size, moments."""

import torch
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities


class WeightSums:
    """Sums of importance weights and of their squares, each relative to the largest weight, for every datum.

    Everything here that estimates log p(x) or an effective sample size reads it off these sums. Particles may come in
    any number of pieces; memory does not grow with them.

    Attributes:
        count: particles so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._largest = self._sum = self._square = torch.empty(0)

    @classmethod
    def of(cls, log_weight: Tensor) -> "WeightSums":
        """The sums of weights that are all there.

        Args:
            log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``.
        """
        sums = cls()
        sums.update(log_weight)
        return sums

    def update(self, log_weight: Tensor) -> None:
        """Add the particles of ``log_weight``, shape ``(particle, datum)``."""
        log_weight = log_weight.detach().double()
        if self.count == 0:
            none = log_weight.new_zeros(log_weight.shape[1])
            self._largest, self._sum, self._square = none - torch.inf, none, none
        largest = torch.maximum(self._largest, log_weight.amax(0))
        # Where every weight so far is zero the shift is immaterial, and -inf - -inf would not be a number.
        shift = torch.where(largest.isfinite(), largest, torch.zeros_like(largest))
        keep, weight = torch.exp(self._largest - shift), torch.exp(log_weight - shift)
        self._sum = self._sum * keep + weight.sum(0)
        self._square = self._square * keep**2 + (weight**2).sum(0)
        self._largest = largest
        self.count += len(log_weight)

    def log_evidence(self) -> tuple[Tensor, Tensor]:
        """Importance-sampling estimate of log p(x) and its Monte Carlo standard error, nats, each ``(datum,)``.

        The estimate is a stochastic lower bound; its bias is about minus half the squared standard error. The error
        comes from the delta method, ``Var(log mean w) = (sum w^2 / (sum w)^2) - 1 / K``. Where every weight of a datum
        is zero the estimate is minus infinity and the error NaN.

        References:
            Burda et al. 2016, Importance weighted autoencoders, eq. 8 and sec. 3. arXiv:1509.00519
            Owen 2013, Monte Carlo theory, methods and examples, ch. 9.
        """
        estimate = self._largest + (self._sum / self.count).log()
        relative = self._square / self._sum**2 - 1 / self.count
        return estimate, relative.clamp(min=0).sqrt()

    def upper_bound(self) -> Tensor:
        """Estimate of the upper bound ``1/2 log E_q[w^2]`` on log p(x), nats, ``(datum,)``.

        The sandwich with `log_evidence` holds in the limit of many draws; `vae_pyro.objectives.cubo` has the bias.

        References:
            Dieng et al. 2017, Variational inference via chi upper bound minimization, CUBO at n = 2. arXiv:1611.00328
        """
        return self._largest + 0.5 * (self._square / self.count).log()

    def effective_sample_size(self) -> Tensor:
        """``(sum w)^2 / sum w^2`` of each datum, between 1 and K, ``(datum,)``.

        References:
            Kong 1992, A note on importance sampling using standardized weights, University of Chicago.
        """
        return self._sum**2 / self._square


class LogDensityMoments:
    """Moments of log densities and latents over particles, in float64 and memory that does not grow.

    Attributes:
        count: particles so far.
        weights: sums of the importance weights.
    """

    def __init__(self) -> None:
        self.weights = WeightSums()
        self._terms: dict[str, tuple[Tensor, Tensor]] = {}  # mean and sum of squared deviations (Welford)
        self._latents: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def count(self) -> int:
        """Particles so far."""
        return self.weights.count

    def update(self, densities: LogDensities) -> None:
        """Add particles."""
        log_likelihood, log_prior, log_guide = (
            part.detach().to("cpu", torch.float64)
            for part in (densities.log_likelihood, densities.log_prior, densities.log_guide)
        )
        terms = {
            "elbo": log_likelihood + log_prior - log_guide,
            "reconstruction": log_likelihood,
            "kl": log_guide - log_prior,
        }
        for name, value in terms.items():
            self._terms[name] = merge_moments(self._terms.get(name), self.count, value)
        for name, value in densities.latents.items():
            draws = value.detach().to("cpu", torch.float64)
            self._latents[name] = merge_moments(self._latents.get(name), self.count, draws)
        self.weights.update(terms["elbo"])

    def term(self, name: str) -> tuple[Tensor, Tensor]:
        """Estimate of ``elbo``, ``reconstruction`` or ``kl`` and its Monte Carlo standard error, each ``(datum,)``."""
        mean, squares = self._terms[name]
        return mean, (squares / max(self.count - 1, 1) / self.count).sqrt()

    def latent(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean and variance over particles of a latent site, each ``(datum, *event)``."""
        mean, squares = self._latents[name]
        return mean, squares / max(self.count - 1, 1)

    @property
    def latent_names(self) -> list[str]:
        """Names of the latent sites seen so far."""
        return list(self._latents)


def merge_moments(old: tuple[Tensor, Tensor] | None, count: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations over the first dimension, joined with those of ``count`` earlier rows.

    References:
        Chan, Golub & LeVeque 1983, Algorithms for computing the sample variance, The American Statistician 37, eq. 2.1.
    """
    new, mean = len(value), value.mean(0)
    squares = ((value - mean) ** 2).sum(0)
    if old is None:
        return mean, squares
    difference = mean - old[0]
    total = count + new
    return old[0] + difference * (new / total), old[1] + squares + difference**2 * (count * new / total)
