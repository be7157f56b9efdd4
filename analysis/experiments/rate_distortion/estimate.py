"""Estimation of the rate and distortion of several pairs."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from analysis.draws.weights import Weighed, weigh
from analysis.experiments.rate_distortion.points import RatePoint
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.latent.information.summary import describe_latent
from analysis.stats.rate_distortion import positive_spectrum
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import Pair

type Array = np.ndarray[Any, Any]

_INFORMATION_STREAM = 3


def rate_distortion(
    pairs: Sequence[tuple[float | None, Pair]] | Mapping[str, tuple[float | None, Pair]],
    x: Split | Any,
    *,
    num_draws: int = 200,
    seed: int = 0,
    entropy: float | None = None,
    spectrum: Array | None = None,
    scale: float | None = None,
    information: bool = False,
) -> RateDistortion:
    """Rate and distortion of several pairs on the same data, with the same draws.

    Args:
        pairs: each with the beta that it was fitted with (``None`` where none), as a list or by label; a pair is a
            `VAE` or a Pyro ``(model, guide)`` that follows the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, at least 2.
        seed: seed of the draws.
        entropy: H of the distribution of the data in nats, where it is known: H - D bounds the rate from below; see
            `analysis.stats.rate_distortion.gaussian_entropy` for Gaussian data.
        spectrum: eigenvalues of the covariance of Gaussian data, ``(dimension,)``; with ``scale`` they give the least
            rate of any code at each distortion, see `analysis.stats.rate_distortion.gaussian_rate`.
        scale: standard deviation of the Gaussian likelihood of all pairs.
        information: estimate I(x; z) as well, whose time grows with the square of the number of data.

    Raises:
        ValueError: no pair, fewer than 2 draws or data, or one of ``spectrum`` and ``scale`` without the other.
    """
    named = dict(pairs) if isinstance(pairs, Mapping) else {}
    if not isinstance(pairs, Mapping):
        for number, (beta, pair) in enumerate(pairs):
            label = f"fit {number}" if beta is None else f"beta={beta:g}"
            named[f"{label} ({number})" if label in named else label] = (beta, pair)
    if not named:
        raise ValueError("pairs is empty; pass at least one pair, or two for a slope")
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2 for a standard error, got {num_draws}")
    if (spectrum is None) != (scale is None):
        raise ValueError("spectrum and scale bound the rate only together; pass both or neither")
    split = as_split(x).fixed(derive_seed(seed, 0))
    if len(split) < 2:
        raise ValueError(f"x must have at least 2 data for a standard error, got {len(split)}")
    points = []
    for label, (beta, pair) in named.items():
        blocks = weigh(pair, split, _moments, num_draws=num_draws, seed=seed)
        moments = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        bracket = None
        if information:
            found = describe_latent(pair, split, seed=derive_seed(seed, _INFORMATION_STREAM))
            bracket = found.mutual_information
        points.append(RatePoint(label, beta, **moments, information=bracket))
    eigenvalues = None if spectrum is None else positive_spectrum(spectrum)
    return RateDistortion.of(points, num_draws, entropy=entropy, spectrum=eigenvalues, scale=scale)


def _moments(block: Weighed) -> dict[str, Array]:
    kl = block.log_likelihood - block.log_weight
    root = sqrt(len(kl))
    return {
        "rate": kl.mean(0),
        "rate_mcse": kl.std(0, ddof=1) / root,
        "distortion": -block.log_likelihood.mean(0),
        "distortion_mcse": block.log_likelihood.std(0, ddof=1) / root,
    }
