"""Noise models p(x | x_clean) by name, one file each, on the likelihood of the clean signal, marginalised exactly."""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.likelihoods.noise.base import NOISES, Noise, add_noise, likelihood_of

__all__ = ["NOISES", "Noise", "add_noise", "likelihood_of"]

import_siblings(__name__)


def __getattr__(name: str) -> type[Noise]:
    return NOISES.exported(__name__, name)
