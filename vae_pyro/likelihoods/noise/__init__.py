"""Stated noise p(x | x_clean) by name, put on the likelihood of the clean signal and marginalised exactly."""

from vae_pyro.likelihoods.gamma import Gamma
from vae_pyro.likelihoods.noise.base import NOISES, Noise, add_noise
from vae_pyro.likelihoods.noise.gaussian import GaussianNoise
from vae_pyro.likelihoods.noise.mixtures import AtomMixture, OrderedCategorical
from vae_pyro.likelihoods.noise.poisson import PoissonNoise
from vae_pyro.likelihoods.noise.salt_and_pepper import SaltAndPepper

__all__ = [
    "NOISES",
    "AtomMixture",
    "Gamma",
    "GaussianNoise",
    "Noise",
    "OrderedCategorical",
    "PoissonNoise",
    "SaltAndPepper",
    "add_noise",
]
