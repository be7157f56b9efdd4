"""Does the model fit, and can its posterior be trusted? Estimates with their errors, on ArviZ's data structures."""

from analysis.datatree import to_datatree
from analysis.elpd import ELPD, elpd
from analysis.predictive import PredictiveCheck, predictive_check

__all__ = ["ELPD", "PredictiveCheck", "elpd", "predictive_check", "to_datatree"]
