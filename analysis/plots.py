"""The only file that draws. Each function takes arrays that others computed and returns a matplotlib `Figure`.

Figures are made without pyplot, so that no backend, style or open figure of the caller's is touched.
"""

from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

_DPI = 120
_MAX_LEGEND = 12
_TRAIN, _VALIDATION = "#1b6ca8", "#c1440e"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(temporary, dpi=_DPI, format="png", metadata={"Software": None})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plot_history(rows: list[dict[str, float]]) -> Figure:
    """Training curves: ELBO, reconstruction and KL by epoch, in nats per datum, training beside validation.

    Args:
        rows: as `vae_pyro.FitResult.history` or ``history.csv`` has them.

    Raises:
        ValueError: no epoch was finished.
    """
    if not rows:
        raise ValueError("the history is empty: no epoch was finished")
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    epoch = [row["epoch"] for row in rows]
    panels = {"elbo": "ELBO", "reconstruction": "E log p(x|z)", "kl": "KL(q(z|x) || p(z))"}
    for axes, (key, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.plot(epoch, [row[key] for row in rows], color=_TRAIN, label="training, mean over the epoch")
        if f"validation_{key}" in rows[0]:
            values = [row[f"validation_{key}"] for row in rows]
            axes.plot(epoch, values, color=_VALIDATION, linestyle="--", label="validation, after the epoch")
        axes.set(title=title, xlabel="epoch", ylabel="nats per datum")
        _clip_start(axes, [row[key] for row in rows])
        axes.grid(alpha=0.25)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _clip_start(axes: Any, values: list[float]) -> None:
    # The first epochs of a fit can be a hundred times off; they would flatten the rest of the curve.
    settled = np.asarray(values[len(values) // 10 :])
    spread = float(np.ptp(settled))
    if len(values) >= 10 and spread > 0:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, settled.min() - spread), min(high, settled.max() + spread))


def _is_image(x: Array) -> bool:
    return x.ndim == 3 or (x.ndim == 4 and x.shape[1] in (1, 3))


def _show(axes: Any, image: Array, low: float, high: float) -> None:
    pixels = image.transpose(1, 2, 0) if image.ndim == 3 and image.shape[0] == 3 else image.squeeze()
    if pixels.ndim == 3:
        pixels = (pixels - low) / max(high - low, 1e-12)
    axes.imshow(np.atleast_2d(pixels), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def plot_data(x: Array, title: str) -> Figure:
    """Data as their shape suggests: a grid of images, a scatter in the plane, or a heat map with one row a datum.

    Args:
        x: ``(datum, *x_shape)``.
        title: above the figure.
    """
    if _is_image(x):
        columns = ceil(sqrt(len(x)))
        rows = ceil(len(x) / columns)
        figure = Figure(figsize=(0.8 * columns, 0.8 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image in zip(grid, x, strict=False):
            axes.set_axis_on()
            _show(axes, image, min(float(x.min()), 0.0), float(x.max()))
    else:
        figure = Figure(figsize=(5.5, 4.5), layout="constrained")
        axes = figure.subplots()
        flat = x.reshape(len(x), -1)
        if flat.shape[1] == 2:
            axes.scatter(flat[:, 0], flat[:, 1], s=8, alpha=0.6, color=_TRAIN)
            axes.set(xlabel="x[0]", ylabel="x[1]")
        else:
            picture = axes.imshow(flat, aspect="auto", interpolation="nearest", cmap="viridis")
            axes.set(xlabel="element of x", ylabel="datum")
            figure.colorbar(picture, ax=axes)
    figure.suptitle(title)
    return figure


def plot_pairs(x: Array, reconstruction: Array) -> Figure:
    """Data beside their reconstructions.

    Args:
        x: ``(datum, *x_shape)``.
        reconstruction: E[x | z], same shape.
    """
    if _is_image(x):
        columns = min(len(x), 8)
        rows = ceil(len(x) / columns)
        figure = Figure(figsize=(0.9 * columns + 0.6, 1.8 * rows + 0.5), layout="constrained")
        grid = figure.subplots(2 * rows, columns, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        low, high = min(float(x.min()), 0.0), float(x.max())
        for index, (datum, again) in enumerate(zip(x, reconstruction, strict=True)):
            row, column = 2 * (index // columns), index % columns
            for offset, (image, name) in enumerate(((datum, "x"), (again, "E[x|z]"))):
                axes = grid[row + offset, column]
                axes.set_axis_on()
                _show(axes, image, low, high)
                if column == 0:
                    axes.set_ylabel(name, fontsize=8)
        figure.suptitle("data, and E[x | z] for a draw of q(z | x)")
        return figure
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(x.ravel(), reconstruction.ravel(), s=8, alpha=0.6, color=_TRAIN)
    ends = [float(x.min()), float(x.max())]
    axes.plot(ends, ends, color=_VALIDATION, linestyle="--", label="equal")
    axes.set(xlabel="x, every element", ylabel="E[x | z]", title="data and reconstructions")
    axes.legend(frameon=False)
    return figure


def plot_latent(loc: Array, labels: Array | None = None) -> Figure:
    """Posterior means in the plane: as they are for two latents, else on their first two principal components.

    Args:
        loc: posterior means, ``(datum, latent_dim)``.
        labels: ``(datum,)``, for the colours.
    """
    figure = Figure(figsize=(6.2, 5.2), layout="constrained")
    axes = figure.subplots()
    if loc.shape[1] == 1:
        plane = np.stack([loc[:, 0], np.zeros(len(loc)) if labels is None else labels.astype(float)], 1)
        names = ("z[0]", "" if labels is None else "label")
    elif loc.shape[1] == 2 or len(loc) < 2:
        plane, names = loc[:, :2], ("z[0]", "z[1]")
    else:
        centred = loc - loc.mean(0)
        _, singular, axes_of_data = np.linalg.svd(centred, full_matrices=False)
        plane = centred @ axes_of_data[:2].T
        share = singular[:2] ** 2 / (singular**2).sum()
        first, second = (f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in range(2))
        names = (first, second)
    if labels is None:
        axes.scatter(plane[:, 0], plane[:, 1], s=7, alpha=0.6, color=_TRAIN)
    else:
        classes = np.unique(labels)
        colours = colormaps["tab10" if len(classes) <= 10 else "nipy_spectral"]
        for index, label in enumerate(classes):
            chosen = labels == label
            colour = colours(index if len(classes) <= 10 else index / (len(classes) - 1))
            axes.scatter(plane[chosen, 0], plane[chosen, 1], s=7, alpha=0.7, color=[colour], label=str(label))
        if len(classes) <= _MAX_LEGEND:
            axes.legend(title="label", markerscale=2, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel=names[0], ylabel=names[1], title=f"means of q(z | x), {len(loc):,} data")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)
    return figure
