"""Twelve models whose log p(x) and posterior are closed, in float64, with their exact guides."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.exact.distributions import Mirrored, log_gamma
from vae_pyro.densities.pair import Pair

type Program = Callable[..., Any]
# x (datum, *event) -> log p(x), nats, (datum,)
type Evidence = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ExactPair:
    """A model with its posterior as guide.

    Attributes:
        name: of the model.
        model: draws data by ``size``.
        guide: the posterior.
        log_evidence: log p(x), nats, of data ``(datum, *event)``.
    """

    name: str
    model: Program
    guide: Program
    log_evidence: Evidence

    @property
    def pair(self) -> Pair:
        """Model and exact guide."""
        return Pair(self.model, self.guide)

    def data(self, size: int, seed: int) -> Tensor:
        """Data of the model, ``(size, *event)``."""
        return self.pair.sample(size, seed=seed)


def real(value: Any) -> Tensor:
    """In float64."""
    return torch.as_tensor(value, dtype=torch.float64)


def model_of(prior: Callable[[int], Any], likelihood: Callable[[Tensor], Any]) -> Program:
    """A model of one latent site: p(z) of so many data, and p(x | z)."""

    def model(x: Tensor | None = None, *, size: int = 1, mask: Any = None, y: Any = None) -> Tensor:
        number = size if x is None else len(x)
        with pyro.plate("data", number):
            z = pyro.sample("z", prior(number))
            value: Tensor = pyro.sample("x", likelihood(z).to_event(1), obs=x)
            return value

    return model


def guide_of(posterior: Callable[[Tensor], Any]) -> Program:
    """A guide of one latent site: q(z | x)."""

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x))

    return guide


def _repeated(z: Tensor, count: int) -> Tensor:
    return z[..., None].expand(*z.shape, count)


def standard_normal(_: int) -> Any:
    """N(0, 1)."""
    return dist.Normal(real(0.0), 1.0)


def several_data(scales: tuple[float, ...] = (0.5, 1.5)) -> ExactPair:
    """``z ~ N(0, 1)``, ``x_j | z ~ N(z, s_j)``: a precise and an imprecise measurement of one number."""
    scale = real(scales)
    model = model_of(standard_normal, lambda z: dist.Normal(_repeated(z, len(scale)), scale))
    covariance = torch.diag(scale**2) + 1
    evidence = dist.MultivariateNormal(torch.zeros_like(scale), covariance).log_prob
    return ExactPair("Gaussian", model, guide_of(lambda x: dist.Normal(*posterior_given(x, scale))), evidence)


def posterior_given(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of z in `several_data`, each ``(datum,)``; infinite scales leave elements out."""
    precision = scale**-2
    variance = 1 / (1 + precision.sum())
    return variance * (x * precision).sum(-1), variance.sqrt().expand(len(x))


def correlated(correlation: float = 0.8) -> ExactPair:
    """Two latents with a Gaussian posterior of variances 0.4 and this correlation, whatever x."""
    covariance, root = correlated_covariance(correlation), _root(correlation)
    model = model_of(lambda n: dist.Normal(real([0.0, 0.0]), 1.0).to_event(1), lambda z: dist.Normal(z @ root, 1.0))
    marginal = torch.eye(2, dtype=torch.float64) + root @ root
    evidence = dist.MultivariateNormal(real([0.0, 0.0]), marginal).log_prob
    return ExactPair(
        "correlated Gaussian",
        model,
        guide_of(lambda x: dist.MultivariateNormal(correlated_mean(x, correlation), covariance)),
        evidence,
    )


def correlated_covariance(correlation: float) -> Tensor:
    """Covariance of the posterior of `correlated`."""
    return 0.4 * real([[1.0, correlation], [correlation, 1.0]])


def correlated_mean(x: Tensor, correlation: float) -> Tensor:
    """Its mean, ``(datum, 2)``."""
    return x @ _root(correlation) @ correlated_covariance(correlation)


def _root(correlation: float) -> Tensor:
    """The decoder whose square is the posterior precision less that of the prior."""
    precision = torch.linalg.inv(correlated_covariance(correlation))
    values, vectors = torch.linalg.eigh(precision - torch.eye(2, dtype=torch.float64))
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def log_gamma_poisson(concentration: float = 1.0, rate: float = 0.5) -> ExactPair:
    """``exp(z) ~ Gamma(a, b)``, ``x | z ~ Poisson(exp(z))``: a skewed posterior on the line."""
    a, b = real(concentration), real(rate)
    model = model_of(lambda n: log_gamma(a, b), lambda z: dist.Poisson(z.exp()[..., None]))
    guide = guide_of(lambda x: log_gamma(a + x[:, 0], (b + 1).expand(len(x))))
    return ExactPair("log-gamma Poisson", model, guide, _negative_binomial(a, b))


def gamma_poisson(concentration: float = 2.0, rate: float = 0.5) -> ExactPair:
    """``z ~ Gamma(a, b)``, ``x | z ~ Poisson(z)``: a positive latent."""
    a, b = real(concentration), real(rate)
    model = model_of(lambda n: dist.Gamma(a, b), lambda z: dist.Poisson(z[..., None]))
    guide = guide_of(lambda x: dist.Gamma(a + x[:, 0], (b + 1).expand(len(x))))
    return ExactPair("gamma Poisson", model, guide, _negative_binomial(a, b))


def _negative_binomial(a: Tensor, b: Tensor) -> Evidence:
    def evidence(x: Tensor) -> Tensor:
        count = x[:, 0]
        constant = (a + count).lgamma() - a.lgamma() - (count + 1).lgamma()
        return constant + a * (b / (b + 1)).log() - count * (b + 1).log()

    return evidence


def beta_bernoulli(a: float = 0.7, b: float = 1.3, count: int = 6) -> ExactPair:
    """``z ~ Beta(a, b)``, six flips of a coin."""
    first, second = real(a), real(b)
    model = model_of(lambda n: dist.Beta(first, second), lambda z: dist.Bernoulli(_repeated(z, count)))
    guide = guide_of(lambda x: dist.Beta(first + x.sum(-1), second + count - x.sum(-1)))

    def log_beta(p: Tensor, q: Tensor) -> Tensor:
        return p.lgamma() + q.lgamma() - (p + q).lgamma()

    return ExactPair(
        "beta Bernoulli",
        model,
        guide,
        lambda x: log_beta(first + x.sum(-1), second + count - x.sum(-1)) - log_beta(first, second),
    )


def two_modes(scale: float = 0.3) -> ExactPair:
    """``z ~ N(0, 1)``, ``x | z ~ N(|z|, s)``: two symmetric modes."""
    model = model_of(standard_normal, lambda z: dist.Normal(z.abs()[..., None], real(scale)))
    guide = guide_of(lambda x: Mirrored(*one_half(x, scale)))
    wide = sqrt(1 + scale**2)

    def evidence(x: Tensor) -> Tensor:
        value = x[:, 0]
        cut = torch.special.log_ndtr(value / (scale * wide))
        return log(2) + dist.Normal(real(0.0), wide).log_prob(value) + cut

    return ExactPair("two modes", model, guide, evidence)


def one_half(x: Tensor, scale: float = 0.3) -> tuple[Tensor, Tensor]:
    """Location and scale of the Gaussian that is cut at 0 in each half of `two_modes`."""
    return x[:, 0] / (1 + scale**2), real(scale / sqrt(1 + scale**2)).expand(len(x))


def mixture_prior(scale: float = 2.0) -> ExactPair:
    """``z`` from two Gaussians at -2 and 2 of widths 0.5, ``x | z ~ N(z, 2)``: two modes of other weights."""
    weight, loc, width = real([0.3, 0.7]), real([-2.0, 2.0]), 0.5

    def mixed(logits: Tensor, centre: Tensor, spread: float) -> Any:
        parts = torch.distributions.Normal(centre, torch.full_like(centre, spread))
        return dist.MixtureSameFamily(torch.distributions.Categorical(logits=logits), parts)

    def joint(x: Tensor) -> Tensor:
        return weight.log() + dist.Normal(loc, sqrt(width**2 + scale**2)).log_prob(x)

    def posterior(x: Tensor) -> Any:
        variance = 1 / (width**-2 + scale**-2)
        return mixed(joint(x), variance * (loc / width**2 + x / scale**2), sqrt(variance))

    model = model_of(lambda n: mixed(weight.log(), loc, width), lambda z: dist.Normal(z[..., None], real(scale)))
    return ExactPair("mixture prior", model, guide_of(posterior), lambda x: joint(x).logsumexp(-1))


def categorical() -> ExactPair:
    """A latent of four values, ``x | k`` Gaussian about one of four points."""
    table = real([[-1.0, 0.5], [0.0, 0.0], [1.0, -1.0], [2.0, 1.0]])

    def joint(x: Tensor) -> Tensor:
        return dist.Normal(table, 1.0).log_prob(x[:, None]).sum(-1) - log(4)

    model = model_of(lambda n: dist.Categorical(real([0.25] * 4)), lambda k: dist.Normal(table[k.long()], 1.0))
    guide = guide_of(lambda x: dist.Categorical(logits=joint(x)))
    return ExactPair("categorical", model, guide, lambda x: joint(x).logsumexp(-1))


def dirichlet() -> ExactPair:
    """Shares of three kinds, and twenty draws of them."""
    prior, total = real([0.8, 1.0, 2.0]), 20

    def model(x: Tensor | None = None, *, size: int = 1, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Dirichlet(prior))
            value: Tensor = pyro.sample("x", dist.Multinomial(total, z, validate_args=False), obs=x)
            return value

    evidence = dist.DirichletMultinomial(prior, total).log_prob
    return ExactPair("Dirichlet multinomial", model, guide_of(lambda x: dist.Dirichlet(prior + x)), evidence)


def precision() -> ExactPair:
    """``z ~ Gamma(2, 2)``, three ``x | z ~ N(0, 1 / z)``: data of heavy tails."""
    a, b, count = real(2.0), real(2.0), 3
    model = model_of(lambda n: dist.Gamma(a, b), lambda z: dist.Normal(real(0.0), _repeated(z.rsqrt(), count)))
    guide = guide_of(lambda x: dist.Gamma((a + count / 2).expand(len(x)), b + (x**2).sum(-1) / 2))

    def evidence(x: Tensor) -> Tensor:
        shape = a + count / 2
        constant = shape.lgamma() - a.lgamma() + a * b.log() - count / 2 * log(2 * pi)
        return constant - shape * (b + (x**2).sum(-1) / 2).log()

    return ExactPair("precision", model, guide, evidence)


def layers() -> ExactPair:
    """Two latents, one above the other, drawn from the posterior in the other order."""
    half = sqrt(0.5)

    def model(x: Tensor | None = None, *, size: int = 1, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            a = pyro.sample("a", dist.Normal(real(0.0), half))
            z = pyro.sample("z", dist.Normal(a, half))
            value: Tensor = pyro.sample("x", dist.Normal(_repeated(z, 3), 1.0).to_event(1), obs=x)
            return value

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.5))
            pyro.sample("a", dist.Normal(z / 2, 0.5))

    evidence = dist.MultivariateNormal(real([0.0] * 3), torch.eye(3, dtype=torch.float64) + 1).log_prob
    return ExactPair("two layers", model, guide, evidence)


def switch(scale: float = 1.0) -> ExactPair:
    """A category with its own mean of z, and z: a discrete and a real latent."""
    weight, loc = real([0.3, 0.7]), real([-1.0, 1.5])

    def joint(x: Tensor) -> Tensor:
        return weight.log() + dist.Normal(loc, sqrt(1 + scale**2)).log_prob(x)

    def model(x: Tensor | None = None, *, size: int = 1, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            k = pyro.sample("k", dist.Categorical(weight))
            z = pyro.sample("z", dist.Normal(loc[k.long()], 1.0))
            value: Tensor = pyro.sample("x", dist.Normal(z[..., None], real(scale)).to_event(1), obs=x)
            return value

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        variance = 1 / (1 + scale**-2)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=joint(x)))
            centre = variance * (loc[k.long()] + x[:, 0] / scale**2)
            pyro.sample("z", dist.Normal(centre, sqrt(variance)))

    return ExactPair("switch", model, guide, lambda x: joint(x).logsumexp(-1))


PAIRS: tuple[Callable[[], ExactPair], ...] = (
    several_data, correlated, log_gamma_poisson, gamma_poisson, beta_bernoulli, two_modes, mixture_prior, categorical,
    dirichlet, precision, layers, switch,
)  # fmt: skip
