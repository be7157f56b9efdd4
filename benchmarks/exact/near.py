"""Ten models whose log p(x) is closed or known by quadrature, with guides near enough for importance sampling.

Two posteriors have several modes, one has a heavy tail; guides are Gaussians somewhat wider than the posterior.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.exact.pairs import (
    ExactPair,
    Program,
    correlated,
    correlated_covariance,
    correlated_mean,
    guide_of,
    layers,
    log_gamma_poisson,
    mixture_prior,
    model_of,
    posterior_given,
    real,
    several_data,
    standard_normal,
    two_modes,
)

# Standard deviations of the guides relative to those of the posterior.
_WIDER = 1.2


class Line:
    """Quadrature over one latent on the line.

    Args:
        prior: log p(z).
        likelihood: log p(x | z) of ``z`` ``(point, 1)`` and ``x`` ``(datum, *event)``, ``(point, datum)``.
        reach: ends of the grid, whose steps grow in proportion to the distance from 0 far from it.
    """

    def __init__(
        self, prior: Callable[[Tensor], Tensor], likelihood: Callable[[Tensor, Tensor], Tensor], reach: float = 40.0
    ) -> None:
        end = float(torch.asinh(real(reach)))
        step = torch.linspace(-end, end, 4001, dtype=torch.float64)
        self._z = step.sinh()[:, None]
        self._log_width = (step.cosh()[:, None] * (step[1] - step[0])).log()
        self._prior, self._likelihood = prior, likelihood

    def _log_joint(self, x: Tensor) -> Tensor:
        return self._prior(self._z) + self._likelihood(self._z, x) + self._log_width

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), nats, ``(datum,)``."""
        return self._log_joint(x).logsumexp(0)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(z | x), each ``(datum,)``."""
        weight = self._log_joint(x).softmax(0)
        mean = (weight * self._z).sum(0)
        return mean, (weight * (self._z - mean) ** 2).sum(0).sqrt()


def _gaussian_guide(moments: Callable[[Tensor], tuple[Tensor, Tensor]], wider: float = _WIDER) -> Program:
    def posterior(x: Tensor) -> Any:
        loc, scale = moments(x)
        return dist.Normal(loc, wider * scale)

    return guide_of(posterior)


def _with_guide(exact: ExactPair, posterior: Callable[[Tensor], Any]) -> ExactPair:
    return ExactPair(exact.name, exact.model, guide_of(posterior), exact.log_evidence)


def gaussian_off() -> ExactPair:
    """A Gaussian that is moved and stretched."""
    scale = real([0.5, 1.5])

    def posterior(x: Tensor) -> Any:
        loc, sd = posterior_given(x, scale)
        return dist.Normal(loc + 0.3 * sd, _WIDER * sd)

    return _with_guide(several_data(), posterior)


def mean_field() -> ExactPair:
    """A diagonal guide of a correlated posterior."""
    exact = correlated()
    sd = correlated_covariance(0.8).diagonal().sqrt()
    return _with_guide(exact, lambda x: dist.Normal(correlated_mean(x, 0.8), sd).to_event(1))


def skewed() -> ExactPair:
    """A Gaussian with the moments of a skewed posterior."""

    def posterior(x: Tensor) -> Any:
        shape = 1 + x[:, 0]
        return dist.Normal(shape.digamma() - real(1.5).log(), _WIDER * torch.polygamma(1, shape).sqrt())

    return _with_guide(log_gamma_poisson(), posterior)


def both_modes() -> ExactPair:
    """A wide Gaussian over two symmetric modes."""
    return _with_guide(two_modes(), lambda x: dist.Normal(0 * x[:, 0], x[:, 0].clamp(min=0.2) + 0.3))


def unequal_modes() -> ExactPair:
    """A wide Gaussian over two modes of different weights."""
    return _with_guide(mixture_prior(), lambda x: dist.Normal(0 * x[:, 0], real(2.5)))


def two_layers() -> ExactPair:
    """Both layers wider than the posterior."""
    exact = layers()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.5 * _WIDER))
            pyro.sample("a", dist.Normal(z / 2, 0.5 * _WIDER))

    return ExactPair(exact.name, exact.model, guide, exact.log_evidence)


def heavy_tail() -> ExactPair:
    """``z ~ t_2``, two ``x | z ~ Cauchy(z, 1)``: the posterior has a tail of power -7, or two modes far apart."""
    prior, one = dist.StudentT(real(2.0)), real(1.0)

    def likelihood(z: Tensor) -> Any:
        return dist.StudentT(one, z[..., None].expand(*z.shape, 2), one)

    line = Line(prior.log_prob, lambda z, x: dist.StudentT(one, z[..., None], one).log_prob(x).sum(-1), reach=1e5)
    return ExactPair(
        "heavy tail", model_of(lambda n: prior, likelihood), _gaussian_guide(line.moments), line.log_evidence
    )


def logistic() -> ExactPair:
    """``z ~ N(0, 1)``, six flips of coins whose log odds are linear in z."""
    slope, offset = real([2.0, -1.0, 0.5, 1.5, -2.0, 1.0]), real([0.0, 0.5, -1.0, 1.0, 0.0, -0.5])

    def likelihood(z: Tensor) -> Any:
        return dist.Bernoulli(logits=z[..., None] * slope + offset)

    line = Line(dist.Normal(real(0.0), 1.0).log_prob, lambda z, x: likelihood(z).log_prob(x).sum(-1))
    model = model_of(standard_normal, likelihood)
    return ExactPair("logistic", model, _gaussian_guide(line.moments), line.log_evidence)


def log_normal_poisson() -> ExactPair:
    """``z ~ N(0, 1)``, ``x | z ~ Poisson(exp(1 + z))``."""

    def likelihood(z: Tensor) -> Any:
        return dist.Poisson((1 + z).exp()[..., None])

    line = Line(dist.Normal(real(0.0), 1.0).log_prob, lambda z, x: likelihood(z).log_prob(x).sum(-1), reach=12.0)
    model = model_of(standard_normal, likelihood)
    return ExactPair("log-normal Poisson", model, _gaussian_guide(line.moments), line.log_evidence)


def banana() -> ExactPair:
    """``z ~ N(0, I)``, ``x ~ N((z_1, z_2 + z_1^2), (1, 0.5))``: z_2 is integrated in closed form, z_1 by quadrature."""
    noise = real([1.0, 0.5])
    wide = sqrt(1 + float(noise[1]) ** 2)

    def likelihood(z: Tensor) -> Any:
        return dist.Normal(torch.stack([z[..., 0], z[..., 1] + z[..., 0] ** 2], -1), noise)

    def of_first(z: Tensor, x: Tensor) -> Tensor:
        second = dist.Normal(z**2, wide).log_prob(x[:, 1])
        return dist.Normal(z, noise[0]).log_prob(x[:, 0]) + second

    line = Line(dist.Normal(real(0.0), 1.0).log_prob, of_first)

    def posterior(x: Tensor) -> Any:
        loc, scale = line.moments(x)
        shrink = 1 / (1 + noise[1] ** 2)
        square = scale**2 + loc**2
        centre, spread = shrink * (x[:, 1] - square), (noise[1] ** 2 * shrink + (2 * loc * scale * shrink) ** 2).sqrt()
        return dist.Normal(torch.stack([loc, centre], -1), 1.3 * torch.stack([scale, spread + scale**2], -1)).to_event(
            1
        )

    model = model_of(lambda n: dist.Normal(real([0.0, 0.0]), 1.0).to_event(1), likelihood)
    return ExactPair("banana", model, guide_of(posterior), line.log_evidence)


PAIRS: tuple[Callable[[], ExactPair], ...] = (
    gaussian_off, mean_field, skewed, both_modes, unequal_modes, two_layers, heavy_tail, logistic, log_normal_poisson,
    banana,
)  # fmt: skip
