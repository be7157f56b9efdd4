"""Variational autoencoders as Bayesian models: a Pyro model, an amortized guide, and honest figures about both."""

from vae_pyro.core.files import RunError
from vae_pyro.data.dataset import DataConfig, Dataset, load_data, stream
from vae_pyro.data.split import Split
from vae_pyro.data.streams.split import StreamedSplit
from vae_pyro.densities.log_densities import LogDensities, log_densities
from vae_pyro.densities.pair import Pair
from vae_pyro.densities.walk import walk
from vae_pyro.evaluation.evaluation import Evaluation, evaluate
from vae_pyro.models.vae import VAE, VAEConfig
from vae_pyro.parallel.signals import FitInterruptedError
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.fitting import FitResult, fit
from vae_pyro.training.loop import NonFiniteLossError

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "DataConfig",
    "Dataset",
    "Evaluation",
    "FitConfig",
    "FitInterruptedError",
    "FitResult",
    "LogDensities",
    "NonFiniteLossError",
    "Pair",
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
    "walk",
]
