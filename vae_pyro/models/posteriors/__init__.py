"""Families q(z | x) of amortized posteriors by name, one file each; importing the folder registers all of them."""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.models.posteriors.base import POSTERIORS, Posterior

__all__ = ["POSTERIORS", "Posterior"]

import_siblings(__name__)


def __getattr__(name: str) -> type[Posterior]:
    return POSTERIORS.exported(__name__, name)
