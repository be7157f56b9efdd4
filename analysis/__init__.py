"""Does the model fit, and can its posterior be trusted? Estimates with their errors, on ArviZ's data structures."""

from analysis.density.comparison import Comparison, compare
from analysis.density.elpd import ELPD, elpd, elpd_of
from analysis.draws.datatree import to_datatree
from analysis.latent.geometry import Structure, structure
from analysis.latent.summary import LatentSummary, describe_latent
from analysis.latent.traversals import interpolate, traverse
from analysis.monitoring.outliers import detect
from analysis.posterior.calibration import Calibration, calibrate
from analysis.posterior.gaps import InferenceGaps, inference_gaps
from analysis.predictive.checking import predictive_check, predictive_checks
from analysis.predictive.checks import PredictiveCheck, PredictiveChecks
from analysis.results.verdict import Verdict
from analysis.samples.generated import SampleComparison, check_samples, compare_samples
from analysis.samples.leakage import Leakage, held_out_check

__all__ = [
    "ELPD",
    "Calibration",
    "Comparison",
    "InferenceGaps",
    "LatentSummary",
    "Leakage",
    "PredictiveCheck",
    "PredictiveChecks",
    "SampleComparison",
    "Structure",
    "Verdict",
    "calibrate",
    "check_samples",
    "compare",
    "compare_samples",
    "describe_latent",
    "detect",
    "elpd",
    "elpd_of",
    "held_out_check",
    "inference_gaps",
    "interpolate",
    "predictive_check",
    "predictive_checks",
    "structure",
    "to_datatree",
    "traverse",
]
