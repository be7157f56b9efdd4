"""Likelihoods p(x | z) by name, one file each.

Every module of this folder is imported with it, so that a class registered in one is found by name, and by its own name
in this package: ``vae_pyro.likelihoods.Gaussian``.
"""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.likelihoods.base import LIKELIHOODS, DataForm, Likelihood

__all__ = ["LIKELIHOODS", "DataForm", "Likelihood"]

import_siblings(__name__)


def __getattr__(name: str) -> type[Likelihood]:
    return LIKELIHOODS.exported(__name__, name)
