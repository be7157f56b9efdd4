"""Objectives: Pyro `ELBO` classes by name, usable with `pyro.infer.SVI` as they stand.

Importing this module registers all of them: Pyro's own (`vae_pyro.elbo`), reductions of the importance weights
(`vae_pyro.bounds`), other treatments of the KL (`vae_pyro.regularizers`) and sums over classes (`vae_pyro.enumerated`).
"""

from vae_pyro.bounds import CIWAE, IWAE, MIWAE, PIWAE, STL, TVO, DReG, MIWAEMissing, Renyi, ReweightedWakeSleep, cubo
from vae_pyro.elbo import OBJECTIVES, KLWeight, LedgerELBO, Objective, Particles, TraceELBO, TraceMeanFieldELBO
from vae_pyro.enumerated import SemiSupervisedELBO
from vae_pyro.regularizers import DIP, Beta, BetaTCVAE, Capacity, FreeBits, InfoVAE

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
