"""Objectives: Pyro `ELBO` classes by name, usable with `pyro.infer.SVI` as they are; one file each.

Every module of this folder is imported with it, so that a class registered in one is found by name, and by its own name
in this package: ``vae_pyro.objectives.IWAE``.
"""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.core.renamed import NAMES
from vae_pyro.objectives.base import OBJECTIVES, KLWeight, MonteCarloObjective, Objective, Particles, Weight

__all__ = ["OBJECTIVES", "KLWeight", "MonteCarloObjective", "Objective", "Particles", "Weight"]

import_siblings(__name__)


def __getattr__(name: str) -> type[Objective]:
    if name in NAMES:
        raise ImportError(f"{__name__}.{name} is now vae_pyro.{NAMES[name]}", name=__name__)
    return OBJECTIVES.exported(__name__, name)
