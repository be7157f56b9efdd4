"""Structures by name: how latents and labels of the two programs hang together. Importing registers all of them."""

from vae_pyro.structures.base import STRUCTURES, Parts, Structure
from vae_pyro.structures.conditional import Conditional
from vae_pyro.structures.single import Single

__all__ = ["STRUCTURES", "Conditional", "Parts", "Single", "Structure"]
