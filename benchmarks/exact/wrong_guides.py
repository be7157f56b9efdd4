"""Guides that are wrong in known ways, beside the models whose posteriors they miss."""

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.exact.distributions import CutNormal, flipped_log_gamma, half_normal
from benchmarks.exact.pairs import (
    ExactPair,
    correlated,
    correlated_covariance,
    correlated_mean,
    guide_of,
    log_gamma_poisson,
    one_half,
    posterior_given,
    real,
    several_data,
    two_modes,
)
from vae_pyro.densities.pair import Pair

type Posterior = Callable[[Tensor], Any]

_SCALES = (0.5, 1.5)
# Of the log-gamma prior: the loss of a guide of the opposite skewness is finite, and so is its variance.
_SHAPE, _RATE = 2.5, 2.0


class Wrong(NamedTuple):
    """A guide beside the model whose posterior it is not.

    Attributes:
        name: what is wrong; ``exact`` where nothing is.
        exact: the model, and its posterior.
        pair: the model with this guide.
    """

    name: str
    exact: ExactPair
    pair: Pair


def _moved(shift: float) -> Posterior:
    def posterior(x: Tensor) -> Any:
        loc, scale = posterior_given(x, real(_SCALES))
        return dist.Normal(loc + shift * scale, scale)

    return posterior


def _stretched(factor: float) -> Posterior:
    def posterior(x: Tensor) -> Any:
        loc, scale = posterior_given(x, real(_SCALES))
        return dist.Normal(loc, factor * scale)

    return posterior


def _student(df: float) -> Posterior:
    def posterior(x: Tensor) -> Any:
        loc, scale = posterior_given(x, real(_SCALES))
        return dist.StudentT(real(df), loc, scale * sqrt((df - 2) / df))

    return posterior


def _cut(share: float) -> Posterior:
    def posterior(x: Tensor) -> Any:
        return CutNormal(*posterior_given(x, real(_SCALES)), (1 - share) / 2, (1 + share) / 2)

    return posterior


def _ignoring(index: int) -> Posterior:
    scale = real(_SCALES)
    scale[index] = torch.inf
    return lambda x: dist.Normal(*posterior_given(torch.where(scale.isinf(), 0.0, x), scale))


def _off_for_some(x: Tensor) -> Any:
    """Three standard deviations off where the third and fourth decimals of x say so: 5 % of the data."""
    loc, scale = posterior_given(x, real(_SCALES))
    chosen = (x[:, 0].abs() * 1e4).floor().remainder(20) == 0
    return dist.Normal(loc + 3 * scale * chosen, scale)


def _without_skew(x: Tensor) -> Any:
    shape, rate = _SHAPE + x[:, 0], real(_RATE + 1)
    return dist.Normal(shape.digamma() - rate.log(), torch.polygamma(1, shape).sqrt())


def _with_opposite_skew(x: Tensor) -> Any:
    return flipped_log_gamma(_SHAPE + x[:, 0], real(_RATE + 1).expand(len(x)))


def _with_correlation(value: float) -> Posterior:
    return lambda x: dist.MultivariateNormal(correlated_mean(x, 0.8), correlated_covariance(value))


def _one_mode(x: Tensor) -> Any:
    return half_normal(*one_half(x))


_GUIDES: tuple[tuple[Callable[[], ExactPair], dict[str, Posterior]], ...] = (
    (
        lambda: several_data(_SCALES),
        {
            "mean off by 0.3 sd": _moved(0.3),
            "scale x 0.5": _stretched(0.5),
            "scale x 2": _stretched(2.0),
            "right moments, Student t5": _student(5.0),
            "cut to the central 99 %": _cut(0.99),
            "cut to the central 98 %": _cut(0.98),
            "cut to the central 95 %": _cut(0.95),
            "ignores the weak datum": _ignoring(1),
            "ignores the strong datum": _ignoring(0),
            "3 sd off for 5 % of the data": _off_for_some,
        },
    ),
    (
        lambda: log_gamma_poisson(_SHAPE, _RATE),
        {"right moments, no skewness": _without_skew, "right moments, opposite skewness": _with_opposite_skew},
    ),
    (
        correlated,
        {"correlation 0.7, not 0.8": _with_correlation(0.7), "correlation 0, not 0.8": _with_correlation(0.0)},
    ),
    (two_modes, {"one mode of two": _one_mode}),
)


def guides() -> Iterator[Wrong]:
    """Of each model the exact guide, then the wrong ones."""
    for make, wrong in _GUIDES:
        exact = make()
        yield Wrong("exact", exact, exact.pair)
        for name, posterior in wrong.items():
            yield Wrong(name, exact, Pair(exact.model, guide_of(posterior)))
