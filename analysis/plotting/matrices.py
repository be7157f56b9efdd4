"""A matrix of numbers with names of its rows and columns."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import Array, styled

_MAX_WRITTEN = 12


@styled
def plot_matrix(values: Array, rows: Sequence[str], columns: Sequence[str], *, label: str) -> Figure:
    """A matrix as colours, with its numbers where there are few.

    Args:
        values: ``(row, column)``; NaN is left white.
        rows: names.
        columns: names.
        label: what the numbers are, and their unit.

    Raises:
        ValueError: another shape, or nothing but NaN.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.shape != (len(rows), len(columns)) or not np.isfinite(matrix).any():
        raise ValueError(f"values of shape ({len(rows)}, {len(columns)}), some finite, required; got {matrix.shape}")
    width, height = (float(np.clip(0.55 * count + 1.6, 3.4, 8.0)) for count in (len(columns), len(rows)))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(matrix, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45 if len(columns) > 4 else 0)
    axes.set_yticks(range(len(rows)), rows)
    if max(matrix.shape) <= _MAX_WRITTEN:
        middle = (float(np.nanmin(matrix)) + float(np.nanmax(matrix))) / 2
        for row, column in np.argwhere(np.isfinite(matrix)):
            value = matrix[row, column]
            colour = "white" if value > middle else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=axes, label=label)
    return figure
