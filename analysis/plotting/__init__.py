"""Style, and pictures that several diagnostics share; a diagnostic's own pictures stand in its folder, in ``plot.py``.

Each function takes arrays that others computed and returns a matplotlib `Figure`. Figures are made without pyplot, so
that no backend, style or open figure of the caller's is touched. Colours are distinguishable by colour-blind readers,
and never carry a meaning alone: a dash, a marker or a word stands beside each.
"""

from analysis.plotting.bars import plot_bars
from analysis.plotting.data import plot_data, plot_pairs
from analysis.plotting.ecdf import plot_ecdf_difference, plot_pit
from analysis.plotting.latent import plot_latent
from analysis.plotting.matrices import plot_matrix
from analysis.plotting.scores import plot_roc, plot_scores
from analysis.plotting.style import encode, save
from analysis.plotting.training import plot_history

__all__ = [
    "encode",
    "plot_bars",
    "plot_data",
    "plot_ecdf_difference",
    "plot_history",
    "plot_latent",
    "plot_matrix",
    "plot_pairs",
    "plot_pit",
    "plot_roc",
    "plot_scores",
    "save",
]
