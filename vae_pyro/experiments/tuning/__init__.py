"""A search over settings by the ELBO of validation data, shared by processes and continued after a kill."""

from vae_pyro.experiments.tuning.search import Search, TuningTrial, read_search
from vae_pyro.experiments.tuning.space import Dimension, parse_space
from vae_pyro.experiments.tuning.tuning import SearchInterruptedError, tune

__all__ = ["Dimension", "Search", "SearchInterruptedError", "TuningTrial", "parse_space", "read_search", "tune"]
