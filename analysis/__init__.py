"""Does the model fit, and can its posterior be trusted? Estimates with their errors, on ArviZ's data structures."""

from analysis.anomaly import detect
from analysis.calibration import Calibration, calibrate
from analysis.checks import PredictiveCheck, PredictiveChecks
from analysis.comparison import Comparison, compare
from analysis.datatree import to_datatree
from analysis.elpd import ELPD, elpd, elpd_of
from analysis.gaps import InferenceGaps, inference_gaps
from analysis.latent import LatentSummary, describe_latent
from analysis.leakage import Leakage, held_out_check
from analysis.predictive import predictive_check, predictive_checks
from analysis.samples import SampleComparison, check_samples, compare_samples
from analysis.structure import Structure, structure
from analysis.traversals import interpolate, traverse
from analysis.verdict import Verdict

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
