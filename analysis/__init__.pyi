"""The public names of the package and the modules that hold them; `__init__.py` imports each at its first use."""

from .density.comparison import Comparison as Comparison
from .density.comparison import compare as compare
from .density.elpd import elpd as elpd
from .density.elpd import elpd_of as elpd_of
from .density.elpd import to_elpd_data as to_elpd_data
from .density.result import ELPD as ELPD
from .diagnostics.config import ReportConfig as ReportConfig
from .diagnostics.context import Context as Context
from .diagnostics.diagnostic import DIAGNOSTICS as DIAGNOSTICS
from .diagnostics.diagnostic import Diagnostic as Diagnostic
from .draws.codes import posterior_means as posterior_means
from .draws.datatree import to_datatree as to_datatree
from .draws.datatree import write_netcdf as write_netcdf
from .experiments.comparison.compare import (
    compare_experiment as compare_experiment,
)
from .experiments.comparison.compare import (
    compare_variants as compare_variants,
)
from .experiments.comparison.result import ExperimentComparison as ExperimentComparison
from .experiments.held_out import HeldOut as HeldOut
from .experiments.measurement import measure as measure
from .experiments.measurement import measure_run as measure_run
from .experiments.measurement import read_held_out as read_held_out
from .experiments.rate_distortion.beta_sweep import rate_distortion_of as rate_distortion_of
from .experiments.rate_distortion.estimate import rate_distortion as rate_distortion
from .experiments.rate_distortion.result import RateDistortion as RateDistortion
from .experiments.search.page import search_page as search_page
from .experiments.search.page import write_search as write_search
from .experiments.search.result import SearchAnalysis as SearchAnalysis
from .experiments.search.result import analyse_search as analyse_search
from .latent.disentanglement.result import Disentanglement as Disentanglement
from .latent.disentanglement.suite import disentanglement as disentanglement
from .latent.information.layer_result import LayersSummary as LayersSummary
from .latent.information.layers import describe_layers as describe_layers
from .latent.information.result import LatentSummary as LatentSummary
from .latent.information.summary import describe_latent as describe_latent
from .latent.similarity import Agreement as Agreement
from .latent.similarity import agreement as agreement
from .latent.similarity import linear_cka as linear_cka
from .latent.similarity import udr as udr
from .latent.structure.clustering import Clustering as Clustering
from .latent.structure.clusters import cluster as cluster
from .latent.structure.geometry import Structure as Structure
from .latent.structure.geometry import structure as structure
from .latent.structure.linear_probe import Probe as Probe
from .latent.structure.linear_probe import probe as probe
from .latent.structure.neighbors import Neighbors as Neighbors
from .latent.structure.neighbors import nearest as nearest
from .latent.structure.projection import Projection as Projection
from .latent.structure.projection import project as project
from .latent.structure.traversals import (
    Interpolation as Interpolation,
)
from .latent.structure.traversals import (
    Traversal as Traversal,
)
from .latent.structure.traversals import (
    interpolate as interpolate,
)
from .latent.structure.traversals import (
    traverse as traverse,
)
from .monitoring.drift.result import Drift as Drift
from .monitoring.drift.section import drift_page as drift_page
from .monitoring.drift.testing import drift_test as drift_test
from .monitoring.outliers.detection import conformal as conformal
from .monitoring.outliers.detection import detect as detect
from .monitoring.outliers.result import Detection as Detection
from .posterior.annealing import (
    AnnealingConfig as AnnealingConfig,
)
from .posterior.annealing import (
    annealed_importance_sampling as annealed_importance_sampling,
)
from .posterior.annealing import (
    bidirectional_monte_carlo as bidirectional_monte_carlo,
)
from .posterior.bounds import Annealing as Annealing
from .posterior.bounds import Sandwich as Sandwich
from .posterior.calibration.evidence import EvidenceBounds as EvidenceBounds
from .posterior.calibration.result import Calibration as Calibration
from .posterior.calibration.sbc import calibrate as calibrate
from .posterior.gaps.decomposition import inference_gaps as inference_gaps
from .posterior.gaps.result import InferenceGaps as InferenceGaps
from .posterior.nuts import PosteriorMoments as PosteriorMoments
from .posterior.nuts import nuts_moments as nuts_moments
from .posterior.refinement.conformal import credible_regions as credible_regions
from .posterior.refinement.drawing import posterior_draws as posterior_draws
from .posterior.refinement.regions import CredibleRegions as CredibleRegions
from .predictive.checking import predictive_check as predictive_check
from .predictive.checking import predictive_checks as predictive_checks
from .predictive.checks import PredictiveCheck as PredictiveCheck
from .predictive.checks import PredictiveChecks as PredictiveChecks
from .report.pair_check import PairCheck as PairCheck
from .report.pair_check import check_pair as check_pair
from .report.report import Report as Report
from .report.report import make_report as make_report
from .report.report import report_run as report_run
from .results.blocks import Section as Section
from .results.estimate import Estimate as Estimate
from .results.estimate import plus_minus as plus_minus
from .results.page import Page as Page
from .results.result import Result as Result
from .results.verdict import Verdict as Verdict
from .samples.copying import DataCopying as DataCopying
from .samples.copying import data_copying as data_copying
from .samples.generated.comparison import compare_samples as compare_samples
from .samples.generated.draws import check_samples as check_samples
from .samples.generated.draws import draw_samples as draw_samples
from .samples.generated.result import SampleComparison as SampleComparison
from .samples.leakage.check import held_out_check as held_out_check
from .samples.leakage.result import Leakage as Leakage
from .samples.synthetic.check import synthetic_data_check as synthetic_data_check
from .samples.synthetic.result import SyntheticDataCheck as SyntheticDataCheck
from .stats.crossed import CrossedMean as CrossedMean
from .stats.crossed import crossed_mean as crossed_mean
from .tasks.classification.result import ClassScores as ClassScores
from .tasks.classification.scores import class_scores as class_scores
from .tasks.denoising.calibration import calibrate_denoising as calibrate_denoising
from .tasks.denoising.calibration_result import DenoisingCalibration as DenoisingCalibration
from .tasks.denoising.check import check_denoising as check_denoising
from .tasks.denoising.psnr import PSNR as PSNR
from .tasks.denoising.psnr import psnr as psnr
from .tasks.denoising.result import DenoisingCheck as DenoisingCheck
from .tasks.imputation.quality import imputation_k as imputation_k
from .tasks.imputation.quality import imputation_quality as imputation_quality
from .tasks.imputation.result import ImputationQuality as ImputationQuality
