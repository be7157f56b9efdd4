"""Codes in the plane, by label or by cluster."""

from math import sqrt
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.plotting.style import BLUE, CLASSES, GREY, MAX_LEGEND, Array, numbers, same_size, styled


@styled
def plot_latent(loc: Array, labels: Array | None = None, *, clusters: Array | None = None) -> Figure:
    """Posterior means in the plane: as they are for two latents, else on their first two principal components.

    One latent is drawn along the line, spread over the other axis by label or by a fixed jitter.

    Args:
        loc: posterior means, ``(datum, latent_dim)``.
        labels: ``(datum,)``, for the colours.
        clusters: ``(datum,)``, found without the labels: a second panel, coloured by them. -1 is noise.

    Raises:
        ValueError: other shapes, or a mean that is not finite.
    """
    loc = numbers("loc", loc, "datum", "latent_dim")
    colourings = [("label", labels)] if labels is not None or clusters is None else []
    colourings += [] if clusters is None else [("cluster", clusters)]
    for name, given in colourings:
        if given is not None:
            same_size(f"{name}s", np.asarray(given), len(loc), "loc")
    both = len(colourings) > 1
    figure = Figure(figsize=(8.2, 3.9) if both else (6.0, 4.6), layout="constrained")
    panels = figure.subplots(1, len(colourings), squeeze=False).ravel()
    for axes, (kind, given) in zip(panels, colourings, strict=True):
        plane, names, lines = _plane(loc, None if given is None else np.asarray(given))
        _scatter_classes(
            figure, axes, plane, None if given is None else np.asarray(given), kind, below=both, rows=lines is not None
        )
        by = "" if given is None else f", by {kind}"
        axes.set(xlabel=names[0], ylabel=names[1], title=f"means of q(z | x), {len(loc):,} data{by}")
        if lines is None:
            axes.set_aspect("equal", adjustable="datalim")
        else:
            axes.set_yticks(range(len(lines)), lines)
        axes.grid()
    return figure


def _plane(loc: Array, classes: Array | None) -> tuple[Array, tuple[str, str], list[str] | None]:
    if loc.shape[1] == 1:
        values, row = (np.zeros(1), np.zeros(len(loc))) if classes is None else np.unique(classes, return_inverse=True)
        jitter = (np.arange(len(loc)) * 0.6180339887) % 1 - 0.5  # multiples of the golden ratio leave no gap
        few = classes is not None and len(values) <= MAX_LEGEND
        lines = [str(value) for value in values] if few else []
        spread = 0.6 if few else 0.0 if classes is not None else 0.8
        return np.stack([loc[:, 0], row + spread * jitter], 1), ("z[0]", ""), lines
    if loc.shape[1] == 2 or len(loc) < 2:
        return loc[:, :2], ("z[0]", "z[1]"), None
    centred = loc - loc.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = singular[:2] ** 2 / max(float((singular**2).sum()), 1e-300)
    first, second = (f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in range(2))
    return centred @ directions[:2].T, (first, second), None


def _scatter_classes(
    figure: Figure, axes: Any, plane: Array, classes: Array | None, kind: str, *, below: bool, rows: bool
) -> None:
    size = float(np.clip(6000 / len(plane), 4, 30))
    if classes is None:
        axes.scatter(plane[:, 0], plane[:, 1], s=size, alpha=0.6, color=BLUE, linewidth=0)
        return
    values = np.unique(classes)
    if len(values) > MAX_LEGEND:
        numbers = classes if np.issubdtype(classes.dtype, np.number) else np.searchsorted(values, classes)
        points = axes.scatter(plane[:, 0], plane[:, 1], s=size, alpha=0.7, c=numbers, cmap="viridis", linewidth=0)
        figure.colorbar(points, ax=axes, label=kind)
        return
    halo = [withStroke(linewidth=2.5, foreground="white")]
    colours = iter(CLASSES * 2)
    for value in values:
        noise = kind == "cluster" and np.issubdtype(classes.dtype, np.number) and value == -1
        colour, name = (GREY, "noise") if noise else (next(colours), str(value))
        chosen = classes == value
        axes.scatter(plane[chosen, 0], plane[chosen, 1], s=size, alpha=0.7, color=[colour], linewidth=0, label=name)
        if not noise and not rows and len(values) > 1 and chosen.sum() > 2:  # it would cover the only points
            middle = np.median(plane[chosen], axis=0)
            axes.text(*middle, name[:12], ha="center", va="center", fontsize=9, weight="bold", path_effects=halo)
    place = (
        {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
        if below
        else {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    )
    axes.legend(
        title=kind,
        markerscale=float(sqrt(28 / size)),
        ncols=min(len(values), 6) if below else 1,
        columnspacing=1,
        handletextpad=0.2,
        **place,
    )
