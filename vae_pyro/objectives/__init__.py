"""Objectives: Pyro `ELBO` classes by name, usable with `pyro.infer.SVI` as they stand.

Importing this module registers all of them: Pyro's own (`vae_pyro.objectives.base`), reductions of the importance
weights (`vae_pyro.objectives.bounds`), other treatments of the KL (`vae_pyro.objectives.regularizers`) and sums over
classes (`vae_pyro.objectives.semi_supervised`).
"""

from vae_pyro.objectives.base import (
    OBJECTIVES,
    KLWeight,
    LedgerELBO,
    Objective,
    Particles,
    TraceELBO,
    TraceMeanFieldELBO,
)
from vae_pyro.objectives.bounds import (
    CIWAE,
    IWAE,
    MIWAE,
    PIWAE,
    STL,
    TVO,
    DReG,
    MIWAEMissing,
    Renyi,
    ReweightedWakeSleep,
    cubo,
)
from vae_pyro.objectives.regularizers import DIP, Beta, BetaTCVAE, Capacity, FreeBits, InfoVAE
from vae_pyro.objectives.semi_supervised import SemiSupervisedELBO

__all__ = [
    "CIWAE",
    "DIP",
    "IWAE",
    "MIWAE",
    "OBJECTIVES",
    "PIWAE",
    "STL",
    "TVO",
    "Beta",
    "BetaTCVAE",
    "Capacity",
    "DReG",
    "FreeBits",
    "InfoVAE",
    "KLWeight",
    "LedgerELBO",
    "MIWAEMissing",
    "Objective",
    "Particles",
    "Renyi",
    "ReweightedWakeSleep",
    "SemiSupervisedELBO",
    "TraceELBO",
    "TraceMeanFieldELBO",
    "cubo",
]
