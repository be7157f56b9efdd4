"""Priors p(z) by name, one file each; importing the folder registers all of them."""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.models.priors.base import PRIORS, Encode, Prior

__all__ = ["PRIORS", "Encode", "Prior"]

import_siblings(__name__)


def __getattr__(name: str) -> type[Prior]:
    return PRIORS.exported(__name__, name)
