"""Variational autoencoders as Bayesian models: a Pyro model, an amortized guide, and honest figures about both."""

from vae_pyro.checkpoint import RunError, RunFolder
from vae_pyro.data import DataConfig, Dataset, Split, StreamedSplit, load_data, stream
from vae_pyro.densities import Ledger, LedgerMoments, log_densities
from vae_pyro.evaluation import Evaluation, evaluate
from vae_pyro.training import FitConfig, FitInterruptedError, FitResult, NonFiniteLossError, fit
from vae_pyro.vae import VAE, VAEConfig

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "DataConfig",
    "Dataset",
    "Evaluation",
    "FitConfig",
    "FitInterruptedError",
    "FitResult",
    "Ledger",
    "LedgerMoments",
    "NonFiniteLossError",
    "RunError",
    "RunFolder",
    "Split",
    "StreamedSplit",
    "VAEConfig",
    "evaluate",
    "fit",
    "load_data",
    "log_densities",
    "stream",
]
