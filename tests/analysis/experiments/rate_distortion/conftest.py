"""Gaussian data, their spectrum, and the curve of the best linear VAEs."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from analysis.experiments.rate_distortion.estimate import rate_distortion
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.stats.rate_distortion import gaussian_entropy
from tests.analysis.experiments.rate_distortion.linear_vae import BETAS, DRAWS, VARIANCE, linear
from tests.truths import example

type Array = np.ndarray[Any, Any]


@pytest.fixture(scope="session")
def x() -> Tensor:
    return example(d=5, q=4, variance=VARIANCE, seed=3).sample(1500, seed=4)


@pytest.fixture(scope="session")
def spectrum(x: Tensor) -> Array:
    """Of the data's own covariance, which is the whole population here."""
    return np.linalg.eigvalsh(np.cov(x.numpy(), rowvar=False, bias=True))


@pytest.fixture(scope="session")
def curve(x: Tensor, spectrum: Array) -> RateDistortion:
    return rate_distortion(
        [(beta, linear(x, 5, beta)) for beta in BETAS],
        x,
        num_draws=DRAWS,
        seed=1,
        entropy=gaussian_entropy(spectrum),
        spectrum=spectrum,
        scale=VARIANCE**0.5,
    )
