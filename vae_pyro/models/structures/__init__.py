"""Structures by name: how latents and labels of the two programs hang together. Importing registers all of them."""

from vae_pyro.models.structures.base import STRUCTURES, Parts, Structure
from vae_pyro.models.structures.bottom_up import BottomUp
from vae_pyro.models.structures.conditional import Conditional
from vae_pyro.models.structures.ladder import Ladder
from vae_pyro.models.structures.not_at_random import NotAtRandom
from vae_pyro.models.structures.semi_supervised import SemiSupervised
from vae_pyro.models.structures.single import Single

__all__ = [
    "STRUCTURES",
    "BottomUp",
    "Conditional",
    "Ladder",
    "NotAtRandom",
    "Parts",
    "SemiSupervised",
    "Single",
    "Structure",
]
