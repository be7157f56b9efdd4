"""The only rooms that draw. Each function takes arrays that others computed and returns a matplotlib `Figure`.

Figures are made without pyplot, so that no backend, style or open figure of the caller's is touched. Colours are told
apart by readers who are colour-blind, and never carry a meaning alone: a dash, a marker or a word stands beside each.
"""

from analysis.plotting.calibration import plot_coverage, plot_ecdf_difference, plot_pit, plot_ranks, plot_tarp
from analysis.plotting.checks import plot_gaps, plot_khat, plot_predictive, plot_roc, plot_scores
from analysis.plotting.data import plot_data, plot_pairs, plot_reconstruction, plot_samples
from analysis.plotting.latent import plot_aggregate, plot_interpolation, plot_kl, plot_latent, plot_traversal
from analysis.plotting.style import encode, save
from analysis.plotting.training import plot_history

__all__ = [
    "encode",
    "plot_aggregate",
    "plot_coverage",
    "plot_data",
    "plot_ecdf_difference",
    "plot_gaps",
    "plot_history",
    "plot_interpolation",
    "plot_khat",
    "plot_kl",
    "plot_latent",
    "plot_pairs",
    "plot_pit",
    "plot_predictive",
    "plot_ranks",
    "plot_reconstruction",
    "plot_roc",
    "plot_samples",
    "plot_scores",
    "plot_tarp",
    "plot_traversal",
    "save",
]
