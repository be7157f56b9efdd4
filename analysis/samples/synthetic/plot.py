"""Pictures of draws of a table beside its rows."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.distributions import marginals
from analysis.plotting.style import MAX_PANELS, styled

if TYPE_CHECKING:
    from analysis.samples.synthetic.result import SyntheticDataCheck


@styled
def plot_columns(found: "SyntheticDataCheck") -> Figure:
    """Histograms of each column among draws and held-out rows; of many columns those that differ most."""
    chosen = np.sort(np.argsort(-found.distance, kind="stable")[:MAX_PANELS])
    rows, draws = found.held_out[:, chosen].copy(), found.values[:, chosen].copy()
    for k in range(len(chosen)):  # draws beyond the bulk of the rows stand at its ends, lest the tails hide it
        low, high = np.nanquantile(rows[:, k], [0.001, 0.999]) if np.isfinite(rows[:, k]).any() else (0.0, 1.0)
        rows[:, k], draws[:, k] = rows[:, k].clip(low, high), draws[:, k].clip(low, high)
    return marginals(rows, draws, [found.names[k] for k in chosen], ("held-out rows", "draws"))


@styled
def plot_associations(found: "SyntheticDataCheck") -> Figure:
    """Associations of pairs of columns, among held-out rows and among draws."""
    figure = Figure(figsize=(8.0, 3.9), layout="constrained")
    count = len(found.names)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, values, title in zip(
        panels, (found.association_held_out, found.association), ("held-out rows", "draws"), strict=True
    ):
        picture = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(title)
        if count <= 20:
            axes.set_xticks(range(count), found.names, rotation=90, fontsize=7)
            axes.set_yticks(range(count), found.names, fontsize=7)
    figure.colorbar(picture, ax=panels, label="association", shrink=0.8)
    return figure
