"""Does the model fit, and can its posterior be trusted? Estimates with their errors, on ArviZ's data structures.

Names are imported when they are first used (PEP 562), so that ``import analysis`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Modules of this package, and the names that are exported from each.
_EXPORTS = {
    "density.comparison": "Comparison compare",
    "density.elpd": "elpd elpd_of to_elpd_data",
    "density.result": "ELPD",
    "diagnostics.config": "ReportConfig",
    "diagnostics.context": "Context",
    "diagnostics.diagnostic": "DIAGNOSTICS Diagnostic",
    "draws.codes": "posterior_means",
    "draws.datatree": "to_datatree write_netcdf",
    "experiments.comparison": "ExperimentComparison compare_variants",
    "experiments.held_out": "HeldOut measure_run read_held_out",
    "experiments.measurement": "compare_experiment measure",
    "experiments.rate_distortion": "RateDistortion rate_distortion rate_distortion_of",
    "latent.disentanglement.result": "Disentanglement",
    "latent.disentanglement.suite": "disentanglement",
    "latent.information.layer_result": "LayersSummary",
    "latent.information.layers": "describe_layers",
    "latent.information.result": "LatentSummary",
    "latent.information.summary": "describe_latent",
    "latent.similarity": "Agreement agreement linear_cka udr",
    "latent.structure.clustering": "Clustering",
    "latent.structure.clusters": "cluster",
    "latent.structure.geometry": "Structure structure",
    "latent.structure.linear_probe": "Probe probe",
    "latent.structure.neighbors": "Neighbors nearest",
    "latent.structure.projection": "Projection project",
    "latent.structure.traversals": "Interpolation Traversal interpolate traverse",
    "monitoring.drift.result": "Drift",
    "monitoring.drift.section": "drift_page",
    "monitoring.drift.testing": "drift_test",
    "monitoring.outliers.detection": "conformal detect",
    "monitoring.outliers.result": "Detection",
    "posterior.annealing": "AnnealingConfig annealed_importance_sampling bidirectional_monte_carlo",
    "posterior.bounds": "Annealing Sandwich",
    "posterior.calibration.result": "Calibration",
    "posterior.calibration.sbc": "calibrate",
    "posterior.gaps.decomposition": "inference_gaps",
    "posterior.gaps.result": "InferenceGaps",
    "posterior.nuts": "PosteriorMoments nuts_moments",
    "predictive.checking": "predictive_check predictive_checks",
    "predictive.checks": "PredictiveCheck PredictiveChecks",
    "report.report": "Report make_report report_run",
    "results.blocks": "Section",
    "results.estimate": "Estimate plus_minus",
    "results.page": "Page",
    "results.result": "Result",
    "results.verdict": "Verdict",
    "samples.copying": "DataCopying data_copying",
    "samples.generated.comparison": "compare_samples",
    "samples.generated.draws": "check_samples draw_samples",
    "samples.generated.result": "SampleComparison",
    "samples.leakage.check": "held_out_check",
    "samples.leakage.result": "Leakage",
    "stats.crossed": "CrossedMean crossed_mean",
    "tasks.classification.result": "ClassScores",
    "tasks.classification.scores": "class_scores",
    "tasks.denoising.calibration": "calibrate_denoising",
    "tasks.denoising.calibration_result": "DenoisingCalibration",
    "tasks.denoising.check": "check_denoising",
    "tasks.denoising.psnr": "PSNR psnr",
    "tasks.denoising.result": "DenoisingCheck",
    "tasks.imputation.quality": "imputation_k imputation_quality",
    "tasks.imputation.result": "ImputationQuality",
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _EXPORTS.items() for name in names.split()}
__all__ = sorted(_HOMES)  # noqa: PLE0605 (one list of names is enough)

if TYPE_CHECKING:  # the same table as type checkers and editors read it
    from analysis.density.comparison import Comparison as Comparison
    from analysis.density.comparison import compare as compare
    from analysis.density.elpd import elpd as elpd
    from analysis.density.elpd import elpd_of as elpd_of
    from analysis.density.elpd import to_elpd_data as to_elpd_data
    from analysis.density.result import ELPD as ELPD
    from analysis.diagnostics.config import ReportConfig as ReportConfig
    from analysis.diagnostics.context import Context as Context
    from analysis.diagnostics.diagnostic import DIAGNOSTICS as DIAGNOSTICS
    from analysis.diagnostics.diagnostic import Diagnostic as Diagnostic
    from analysis.draws.codes import posterior_means as posterior_means
    from analysis.draws.datatree import to_datatree as to_datatree
    from analysis.draws.datatree import write_netcdf as write_netcdf
    from analysis.experiments.comparison import (
        ExperimentComparison as ExperimentComparison,
    )
    from analysis.experiments.comparison import (
        compare_variants as compare_variants,
    )
    from analysis.experiments.held_out import (
        HeldOut as HeldOut,
    )
    from analysis.experiments.held_out import (
        measure_run as measure_run,
    )
    from analysis.experiments.held_out import (
        read_held_out as read_held_out,
    )
    from analysis.experiments.measurement import compare_experiment as compare_experiment
    from analysis.experiments.measurement import measure as measure
    from analysis.experiments.rate_distortion import (
        RateDistortion as RateDistortion,
    )
    from analysis.experiments.rate_distortion import (
        rate_distortion as rate_distortion,
    )
    from analysis.experiments.rate_distortion import (
        rate_distortion_of as rate_distortion_of,
    )
    from analysis.latent.disentanglement.result import Disentanglement as Disentanglement
    from analysis.latent.disentanglement.suite import disentanglement as disentanglement
    from analysis.latent.information.layer_result import LayersSummary as LayersSummary
    from analysis.latent.information.layers import describe_layers as describe_layers
    from analysis.latent.information.result import LatentSummary as LatentSummary
    from analysis.latent.information.summary import describe_latent as describe_latent
    from analysis.latent.similarity import (
        Agreement as Agreement,
    )
    from analysis.latent.similarity import (
        agreement as agreement,
    )
    from analysis.latent.similarity import (
        linear_cka as linear_cka,
    )
    from analysis.latent.similarity import (
        udr as udr,
    )
    from analysis.latent.structure.clustering import Clustering as Clustering
    from analysis.latent.structure.clusters import cluster as cluster
    from analysis.latent.structure.geometry import Structure as Structure
    from analysis.latent.structure.geometry import structure as structure
    from analysis.latent.structure.linear_probe import Probe as Probe
    from analysis.latent.structure.linear_probe import probe as probe
    from analysis.latent.structure.neighbors import Neighbors as Neighbors
    from analysis.latent.structure.neighbors import nearest as nearest
    from analysis.latent.structure.projection import Projection as Projection
    from analysis.latent.structure.projection import project as project
    from analysis.latent.structure.traversals import (
        Interpolation as Interpolation,
    )
    from analysis.latent.structure.traversals import (
        Traversal as Traversal,
    )
    from analysis.latent.structure.traversals import (
        interpolate as interpolate,
    )
    from analysis.latent.structure.traversals import (
        traverse as traverse,
    )
    from analysis.monitoring.drift.result import Drift as Drift
    from analysis.monitoring.drift.section import drift_page as drift_page
    from analysis.monitoring.drift.testing import drift_test as drift_test
    from analysis.monitoring.outliers.detection import conformal as conformal
    from analysis.monitoring.outliers.detection import detect as detect
    from analysis.monitoring.outliers.result import Detection as Detection
    from analysis.posterior.annealing import (
        AnnealingConfig as AnnealingConfig,
    )
    from analysis.posterior.annealing import (
        annealed_importance_sampling as annealed_importance_sampling,
    )
    from analysis.posterior.annealing import (
        bidirectional_monte_carlo as bidirectional_monte_carlo,
    )
    from analysis.posterior.bounds import Annealing as Annealing
    from analysis.posterior.bounds import Sandwich as Sandwich
    from analysis.posterior.calibration.result import Calibration as Calibration
    from analysis.posterior.calibration.sbc import calibrate as calibrate
    from analysis.posterior.gaps.decomposition import inference_gaps as inference_gaps
    from analysis.posterior.gaps.result import InferenceGaps as InferenceGaps
    from analysis.posterior.nuts import PosteriorMoments as PosteriorMoments
    from analysis.posterior.nuts import nuts_moments as nuts_moments
    from analysis.predictive.checking import (
        predictive_check as predictive_check,
    )
    from analysis.predictive.checking import (
        predictive_checks as predictive_checks,
    )
    from analysis.predictive.checks import PredictiveCheck as PredictiveCheck
    from analysis.predictive.checks import PredictiveChecks as PredictiveChecks
    from analysis.report.report import Report as Report
    from analysis.report.report import make_report as make_report
    from analysis.report.report import report_run as report_run
    from analysis.results.blocks import Section as Section
    from analysis.results.estimate import Estimate as Estimate
    from analysis.results.estimate import plus_minus as plus_minus
    from analysis.results.page import Page as Page
    from analysis.results.result import Result as Result
    from analysis.results.verdict import Verdict as Verdict
    from analysis.samples.copying import DataCopying as DataCopying
    from analysis.samples.copying import data_copying as data_copying
    from analysis.samples.generated.comparison import compare_samples as compare_samples
    from analysis.samples.generated.draws import check_samples as check_samples
    from analysis.samples.generated.draws import draw_samples as draw_samples
    from analysis.samples.generated.result import SampleComparison as SampleComparison
    from analysis.samples.leakage.check import held_out_check as held_out_check
    from analysis.samples.leakage.result import Leakage as Leakage
    from analysis.stats.crossed import CrossedMean as CrossedMean
    from analysis.stats.crossed import crossed_mean as crossed_mean
    from analysis.tasks.classification.result import ClassScores as ClassScores
    from analysis.tasks.classification.scores import class_scores as class_scores
    from analysis.tasks.denoising.calibration import calibrate_denoising as calibrate_denoising
    from analysis.tasks.denoising.calibration_result import DenoisingCalibration as DenoisingCalibration
    from analysis.tasks.denoising.check import check_denoising as check_denoising
    from analysis.tasks.denoising.psnr import PSNR as PSNR
    from analysis.tasks.denoising.psnr import psnr as psnr
    from analysis.tasks.denoising.result import DenoisingCheck as DenoisingCheck
    from analysis.tasks.imputation.quality import (
        imputation_k as imputation_k,
    )
    from analysis.tasks.imputation.quality import (
        imputation_quality as imputation_quality,
    )
    from analysis.tasks.imputation.result import ImputationQuality as ImputationQuality
else:  # hidden from type checkers, for which any name would otherwise be one

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
