"""How the fit went."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, RED, styled


@styled
def plot_history(rows: list[dict[str, float]]) -> Figure:
    """Training curves: ELBO, reconstruction and KL by epoch, in nats per datum, training beside validation.

    Args:
        rows: as `vae_pyro.FitResult.history` or ``history.csv`` has them.

    Raises:
        ValueError: no epoch was finished.
    """
    if not rows:
        raise ValueError("the history is empty: no epoch was finished")
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    epoch = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 3 else None
    panels = {"elbo": "ELBO", "reconstruction": "E log p(x|z)", "kl": "KL(q(z|x) || p(z))"}
    for axes, (key, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.plot(epoch, [row[key] for row in rows], color=BLUE, marker=marker, label="training, mean over the epoch")
        if f"validation_{key}" in rows[0]:
            values = [row[f"validation_{key}"] for row in rows]
            axes.plot(epoch, values, color=RED, linestyle="--", marker=marker, label="validation, after the epoch")
        axes.set(title=title, xlabel="epoch", ylabel="nats per datum")
        _clip_start(axes, [row[key] for row in rows])
        axes.grid()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _clip_start(axes: Any, values: list[float]) -> None:
    # The first epochs of a fit can be a hundred times off; they would flatten the rest of the curve.
    settled = np.asarray(values[len(values) // 10 :])
    spread = float(np.ptp(settled))
    if len(values) >= 10 and spread > 0:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, settled.min() - spread), min(high, settled.max() + spread))
