"""Structures by name, one file each: the graph of latents and labels in model and guide.

Importing the folder registers all of them.
"""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.models.structures.base import STRUCTURES, Parts, Structure

__all__ = ["STRUCTURES", "Parts", "Structure"]

import_siblings(__name__)


def __getattr__(name: str) -> type[Structure]:
    return STRUCTURES.exported(__name__, name)
