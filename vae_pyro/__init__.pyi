"""The public names of the package and the modules that hold them; `__init__.py` imports each at its first use."""

from .applications.classification import Classification as Classification
from .applications.classification import classify as classify
from .applications.compression.archive import (
    Archive as Archive,
)
from .applications.compression.archive import (
    ArchiveError as ArchiveError,
)
from .applications.compression.archive import (
    read_archive as read_archive,
)
from .applications.compression.codec import compress as compress
from .applications.compression.codec import decompress as decompress
from .applications.compression.rates import CompressionRates as CompressionRates
from .applications.compression.rates import compression_rates as compression_rates
from .applications.denoising import Denoised as Denoised
from .applications.denoising import denoise as denoise
from .applications.estimators import VAEImputer as VAEImputer
from .applications.estimators import VAETransformer as VAETransformer
from .applications.imputation import Imputation as Imputation
from .applications.imputation import impute as impute
from .applications.rubin import Pooled as Pooled
from .applications.rubin import pool as pool
from .core.files import RunError as RunError
from .core.registry import Choice as Choice
from .core.registry import Registry as Registry
from .data.dataset import DataConfig as DataConfig
from .data.dataset import Dataset as Dataset
from .data.dataset import load_data as load_data
from .data.dataset import stream as stream
from .data.sources import DATASETS as DATASETS
from .data.split import Split as Split
from .data.streams.split import StreamedSplit as StreamedSplit
from .data.tables import Column as Column
from .data.tables import Schema as Schema
from .data.tables import infer as infer
from .densities.log_densities import LogDensities as LogDensities
from .densities.log_densities import log_densities as log_densities
from .densities.pair import Pair as Pair
from .densities.walk import walk as walk
from .evaluation.evaluation import Evaluation as Evaluation
from .evaluation.evaluation import evaluate as evaluate
from .experiments.config import ExperimentConfig as ExperimentConfig
from .experiments.folder import Experiment as Experiment
from .experiments.folder import read_experiment as read_experiment
from .experiments.running import run_experiment as run_experiment
from .experiments.tuning.search import Search as Search
from .experiments.tuning.search import read_search as read_search
from .experiments.tuning.tuning import tune as tune
from .likelihoods import LIKELIHOODS as LIKELIHOODS
from .likelihoods import Likelihood as Likelihood
from .likelihoods.noise import NOISES as NOISES
from .likelihoods.noise import Noise as Noise
from .likelihoods.noise import add_noise as add_noise
from .models.posteriors import POSTERIORS as POSTERIORS
from .models.posteriors import Posterior as Posterior
from .models.presets import PRESETS as PRESETS
from .models.presets import Preset as Preset
from .models.priors import PRIORS as PRIORS
from .models.priors import Prior as Prior
from .models.structures import STRUCTURES as STRUCTURES
from .models.structures import Structure as Structure
from .models.vae import VAE as VAE
from .models.vae import VAEConfig as VAEConfig
from .nn import DECODERS as DECODERS
from .nn import ENCODERS as ENCODERS
from .nn import Decoder as Decoder
from .nn import Encoder as Encoder
from .objectives import (
    CIWAE as CIWAE,
)
from .objectives import (
    DIP as DIP,
)
from .objectives import (
    IWAE as IWAE,
)
from .objectives import (
    MIWAE as MIWAE,
)
from .objectives import (
    OBJECTIVES as OBJECTIVES,
)
from .objectives import (
    PIWAE as PIWAE,
)
from .objectives import (
    STL as STL,
)
from .objectives import (
    TVO as TVO,
)
from .objectives import (
    Beta as Beta,
)
from .objectives import (
    BetaTCVAE as BetaTCVAE,
)
from .objectives import (
    Capacity as Capacity,
)
from .objectives import (
    DReG as DReG,
)
from .objectives import (
    FreeBits as FreeBits,
)
from .objectives import (
    InfoVAE as InfoVAE,
)
from .objectives import (
    KLWeight as KLWeight,
)
from .objectives import (
    MIWAEMissing as MIWAEMissing,
)
from .objectives import (
    MonteCarloObjective as MonteCarloObjective,
)
from .objectives import (
    Objective as Objective,
)
from .objectives import (
    Particles as Particles,
)
from .objectives import (
    Renyi as Renyi,
)
from .objectives import (
    ReweightedWakeSleep as ReweightedWakeSleep,
)
from .objectives import (
    SemiSupervisedELBO as SemiSupervisedELBO,
)
from .objectives import (
    TraceELBO as TraceELBO,
)
from .objectives import (
    TraceMeanFieldELBO as TraceMeanFieldELBO,
)
from .objectives.cubo import cubo as cubo
from .parallel.signals import FitInterruptedError as FitInterruptedError
from .runs.folder import RunFolder as RunFolder
from .svi.compiled_svi import CompiledSVI as CompiledSVI
from .svi.compiled_svi import SVIFallbackWarning as SVIFallbackWarning
from .training.config import FitConfig as FitConfig
from .training.ensemble import fit_ensemble as fit_ensemble
from .training.failure import NonFiniteLossError as NonFiniteLossError
from .training.fitting import FitResult as FitResult
from .training.fitting import fit as fit
from .training.optimizers import OPTIMIZERS as OPTIMIZERS
from .training.schedules import SCHEDULES as SCHEDULES
from .training.schedules import Schedule as Schedule
from .training.warm_start import (
    Continuation as Continuation,
)
from .training.warm_start import (
    continue_from as continue_from,
)
from .training.warm_start import (
    initialize_from as initialize_from,
)

__version__: str
