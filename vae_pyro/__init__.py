"""Variational autoencoders as Bayesian models: a Pyro model, an amortized guide, and diagnostics of both.

Names are imported when they are first used (PEP 562), so that ``import vae_pyro`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vae_pyro.core.renamed import no_name

__version__ = "0.1.0"

# Modules of this package, and the names that are exported from each.
_EXPORTS = {
    "applications.classification": "Classification classify",
    "applications.compression.archive": "Archive ArchiveError read_archive",
    "applications.compression.codec": "compress decompress",
    "applications.compression.rates": "CompressionRates compression_rates",
    "applications.denoising": "Denoised denoise",
    "applications.estimators": "VAEImputer VAETransformer",
    "applications.imputation": "Imputation impute",
    "applications.rubin": "Pooled pool",
    "core.files": "RunError",
    "core.registry": "Choice Registry",
    "data.dataset": "DataConfig Dataset load_data stream",
    "data.datasets": "DATASETS",
    "data.facts": "DataFacts",
    "data.readers": "READERS",
    "data.split": "Split",
    "data.streams.split": "StreamedSplit",
    "data.tables.inference": "infer",
    "data.tables.schema": "Column Schema",
    "densities.log_densities": "LogDensities log_densities",
    "densities.pair": "Pair",
    "densities.walk": "walk",
    "evaluation.evaluation": "Evaluation evaluate",
    "experiments.config": "ExperimentConfig",
    "experiments.folder": "Experiment read_experiment",
    "experiments.running": "run_experiment",
    "experiments.tuning.search": "Search read_search",
    "experiments.tuning.tuning": "tune",
    "likelihoods": "LIKELIHOODS Likelihood",
    "likelihoods.noise": "NOISES Noise add_noise",
    "models.posteriors": "POSTERIORS Posterior",
    "models.presets": "PRESETS Preset",
    "models.priors": "PRIORS Prior",
    "models.structures": "STRUCTURES Structure",
    "models.vae": "VAE VAEConfig",
    "nn": "DECODERS ENCODERS Decoder Encoder",
    "objectives": (
        "CIWAE DIP IWAE MIWAE OBJECTIVES PIWAE STL TVO Beta BetaTCVAE Capacity DReG FreeBits InfoVAE KLWeight "
        "MIWAEMissing MonteCarloObjective Objective Particles Renyi ReweightedWakeSleep SemiSupervisedELBO TraceELBO "
        "TraceMeanFieldELBO"
    ),
    "objectives.cubo": "cubo",
    "parallel.signals": "FitInterruptedError",
    "runs.folder": "RunFolder",
    "svi.compiled_svi": "CompiledSVI SVIFallbackWarning",
    "training.config": "FitConfig",
    "training.ensemble": "fit_ensemble",
    "training.fitting": "FitResult fit",
    "training.failure": "NonFiniteLossError",
    "training.optimizers": "OPTIMIZERS",
    "training.schedules": "SCHEDULES Schedule",
    "training.warm_start": "Continuation continue_from initialize_from",
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _EXPORTS.items() for name in names.split()}
__all__ = sorted(_HOMES)  # noqa: PLE0605 (one list of names is enough)

if TYPE_CHECKING:  # the same table as type checkers and editors read it
    # isort: off
    from vae_pyro.applications.classification import Classification as Classification, classify as classify
    from vae_pyro.applications.compression.archive import (
        Archive as Archive,
        ArchiveError as ArchiveError,
        read_archive as read_archive,
    )
    from vae_pyro.applications.compression.codec import compress as compress, decompress as decompress
    from vae_pyro.applications.compression.rates import (
        CompressionRates as CompressionRates,
        compression_rates as compression_rates,
    )
    from vae_pyro.applications.denoising import Denoised as Denoised, denoise as denoise
    from vae_pyro.applications.estimators import VAEImputer as VAEImputer, VAETransformer as VAETransformer
    from vae_pyro.applications.imputation import Imputation as Imputation, impute as impute
    from vae_pyro.applications.rubin import Pooled as Pooled, pool as pool
    from vae_pyro.core.files import RunError as RunError
    from vae_pyro.core.registry import Choice as Choice, Registry as Registry
    from vae_pyro.data.dataset import (
        DataConfig as DataConfig,
        Dataset as Dataset,
        load_data as load_data,
        stream as stream,
    )
    from vae_pyro.data.datasets import DATASETS as DATASETS
    from vae_pyro.data.facts import DataFacts as DataFacts
    from vae_pyro.data.readers import READERS as READERS
    from vae_pyro.data.split import Split as Split
    from vae_pyro.data.streams.split import StreamedSplit as StreamedSplit
    from vae_pyro.data.tables.inference import infer as infer
    from vae_pyro.data.tables.schema import Column as Column, Schema as Schema
    from vae_pyro.densities.log_densities import LogDensities as LogDensities, log_densities as log_densities
    from vae_pyro.densities.pair import Pair as Pair
    from vae_pyro.densities.walk import walk as walk
    from vae_pyro.evaluation.evaluation import Evaluation as Evaluation, evaluate as evaluate
    from vae_pyro.experiments.config import ExperimentConfig as ExperimentConfig
    from vae_pyro.experiments.folder import Experiment as Experiment, read_experiment as read_experiment
    from vae_pyro.experiments.running import run_experiment as run_experiment
    from vae_pyro.experiments.tuning.search import Search as Search, read_search as read_search
    from vae_pyro.experiments.tuning.tuning import tune as tune
    from vae_pyro.likelihoods import LIKELIHOODS as LIKELIHOODS, Likelihood as Likelihood
    from vae_pyro.likelihoods.noise import NOISES as NOISES, Noise as Noise, add_noise as add_noise
    from vae_pyro.models.posteriors import POSTERIORS as POSTERIORS, Posterior as Posterior
    from vae_pyro.models.presets import PRESETS as PRESETS, Preset as Preset
    from vae_pyro.models.priors import PRIORS as PRIORS, Prior as Prior
    from vae_pyro.models.structures import STRUCTURES as STRUCTURES, Structure as Structure
    from vae_pyro.models.vae import VAE as VAE, VAEConfig as VAEConfig
    from vae_pyro.nn import DECODERS as DECODERS, ENCODERS as ENCODERS, Decoder as Decoder, Encoder as Encoder
    from vae_pyro.objectives import (
        CIWAE as CIWAE,
        DIP as DIP,
        IWAE as IWAE,
        MIWAE as MIWAE,
        OBJECTIVES as OBJECTIVES,
        PIWAE as PIWAE,
        STL as STL,
        TVO as TVO,
        Beta as Beta,
        BetaTCVAE as BetaTCVAE,
        Capacity as Capacity,
        DReG as DReG,
        FreeBits as FreeBits,
        InfoVAE as InfoVAE,
        KLWeight as KLWeight,
        MIWAEMissing as MIWAEMissing,
        MonteCarloObjective as MonteCarloObjective,
        Objective as Objective,
        Particles as Particles,
        Renyi as Renyi,
        ReweightedWakeSleep as ReweightedWakeSleep,
        SemiSupervisedELBO as SemiSupervisedELBO,
        TraceELBO as TraceELBO,
        TraceMeanFieldELBO as TraceMeanFieldELBO,
    )
    from vae_pyro.objectives.cubo import cubo as cubo
    from vae_pyro.parallel.signals import FitInterruptedError as FitInterruptedError
    from vae_pyro.runs.folder import RunFolder as RunFolder
    from vae_pyro.svi.compiled_svi import CompiledSVI as CompiledSVI, SVIFallbackWarning as SVIFallbackWarning
    from vae_pyro.training.config import FitConfig as FitConfig
    from vae_pyro.training.ensemble import fit_ensemble as fit_ensemble
    from vae_pyro.training.fitting import FitResult as FitResult, fit as fit
    from vae_pyro.training.failure import NonFiniteLossError as NonFiniteLossError
    from vae_pyro.training.optimizers import OPTIMIZERS as OPTIMIZERS
    from vae_pyro.training.schedules import SCHEDULES as SCHEDULES, Schedule as Schedule
    from vae_pyro.training.warm_start import (
        Continuation as Continuation,
        continue_from as continue_from,
        initialize_from as initialize_from,
    )
    # isort: on
else:  # hidden from type checkers, for which any name would otherwise be one

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise no_name(name)
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
