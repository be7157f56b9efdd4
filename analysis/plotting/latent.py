"""The latent space: what each latent carries, where the data lie in it, and what the decoder makes of its points."""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.plotting.data import bounds_of, is_image, labelled_tiles
from analysis.plotting.style import (
    BLUE,
    CLASSES,
    GREY,
    INK,
    MAX_LEGEND,
    MAX_PANELS,
    RED,
    Array,
    marginals,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)

_MAX_ROWS = 20


@styled
def plot_kl(
    kl: Array,
    error: Array | None = None,
    *,
    activity: Array | None = None,
    threshold: float = 0.01,
) -> Figure:
    """KL of each latent in falling order, and which of them the model uses.

    Args:
        kl: KL(q(z_j | x) || p(z_j)) averaged over data, nats, ``(latent,)``.
        error: standard errors, ``(latent,)``.
        activity: variance over data of each posterior mean, ``(latent,)``: a second panel, on a logarithmic axis.
        threshold: a latent is active above it, by ``activity`` where that is given, else by ``kl``.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.

    References:
        Burda et al. 2016, Importance weighted autoencoders, sec. 5 (activity above 0.01). arXiv:1509.00519
    """
    values = numbers("kl", kl, "latent")
    errors = None if error is None else numbers("error", error, "latent")
    variance = None if activity is None else numbers("activity", activity, "latent")
    for name, array in (("error", errors), ("activity", variance)):
        if array is not None:
            same_size(name, array, len(values), "kl")
    order = np.argsort(-values, kind="stable")
    active = ((values if variance is None else variance) > threshold)[order]
    place = np.arange(len(values))
    count = 1 if variance is None else 2
    width = float(np.clip(0.3 * len(values) + 1.2, 4.4, 7.6))
    figure = Figure(figsize=(width, 2.1 * count + 0.4), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False).ravel()
    for chosen, colour, hatch in ((active, BLUE, ""), (~active, "white", "////")):
        panels[0].bar(place[chosen], values[order][chosen], color=colour, hatch=hatch, edgecolor=BLUE, linewidth=0.8)
    if errors is not None:
        panels[0].errorbar(place, values[order], errors[order], fmt="none", ecolor=INK, capsize=2, linewidth=0.9)
    some = "" if active.all() else " (filled)"
    panels[0].set(ylabel="KL, nats", title=f"{int(active.sum())} of {len(active)} active{some}, above the dashed line")
    panels[0].set_xlim(-0.7, max(len(values), 5) - 0.3)
    if variance is None:
        panels[0].axhline(threshold, color=RED, linestyle="--", linewidth=1)
    else:
        shown = np.maximum(variance[order], 1e-6)
        for chosen, fill in ((active, BLUE), (~active, "white")):
            panels[1].plot(place[chosen], shown[chosen], "o", color=BLUE, markerfacecolor=fill, markersize=4)
        panels[1].axhline(threshold, color=RED, linestyle="--", linewidth=1)
        panels[1].set(yscale="log", ylabel="variance of E[z|x]")
    every = ceil(len(values) / 30)
    panels[-1].set_xticks(place[::every], [str(index) for index in order[::every]])
    panels[-1].set_xlabel("latent, in falling order of KL")
    for axes in panels:
        axes.grid(axis="y")
    return figure


@styled
def plot_aggregate(aggregate: Array, prior: Array, names: Sequence[str] | None = None) -> Figure:
    """Aggregate posterior against prior, one latent at a time.

    Args:
        aggregate: draws of q(z | x) pooled over data, ``(draw, latent)``. At most twelve latents are shown.
        prior: draws of p(z), ``(draw, latent)``.
        names: of the latents; ``z[i]`` if not given.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    pooled, before = numbers("aggregate", aggregate, "draw", "latent"), numbers("prior", prior, "draw", "latent")
    same_size("prior", before, pooled.shape[1], "aggregate")
    shown = min(pooled.shape[1], MAX_PANELS)
    names = names_of(names, pooled.shape[1])[:shown]
    figure = marginals(pooled, before, names, ("aggregate posterior q(z)", "prior p(z)"))
    if shown < pooled.shape[1]:
        figure.suptitle(f"the first {shown} of {pooled.shape[1]} latents")
    return figure


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


@styled
def plot_traversal(
    decoded: Array, values: Array, names: Sequence[str] | None = None, *, bounds: tuple[float, float] | None = None
) -> Figure:
    """E[x | z] along one latent at a time: one row a latent.

    Args:
        decoded: ``(latent, step, *x_shape)``. At most twenty latents are shown.
        values: of the latent at each step, ``(step,)``.
        names: of the latents; ``z[i]`` if not given.
        bounds: what white and black stand for, best the range of the data; that of ``decoded`` if not given.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    decoded, names = _rows("decoded", decoded, names, "z")
    steps = numbers("values", values, "step")
    same_size("values", steps, decoded.shape[1], "decoded")
    return _draw_rows(decoded, names, steps, "value of the latent", "E[x | z] along a latent", bounds)


@styled
def plot_interpolation(
    decoded: Array, names: Sequence[str] | None = None, *, bounds: tuple[float, float] | None = None
) -> Figure:
    """E[x | z] on the way from the code of one datum to that of another: one row a pair.

    Args:
        decoded: ``(pair, step, *x_shape)``. At most twenty pairs are shown.
        names: of the pairs; their numbers if not given.
        bounds: see `plot_traversal`.

    Raises:
        ValueError: other shapes, or a value that is not finite.
    """
    decoded, names = _rows("decoded", decoded, names, "pair")
    fraction = np.linspace(0, 1, decoded.shape[1])
    return _draw_rows(decoded, names, fraction, "fraction of the way", "E[x | z] between two data", bounds)


def _rows(name: str, decoded: Any, names: Sequence[str] | None, stem: str) -> tuple[Array, list[str]]:
    array = np.asarray(decoded, dtype=np.float64)
    if array.ndim < 3 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} of shape (row, step, *x_shape), finite, wanted; got {array.shape}")
    return array[:_MAX_ROWS], names_of(names, len(array), stem)[:_MAX_ROWS]


def _draw_rows(
    decoded: Array, names: list[str], steps: Array, along: str, title: str, bounds: tuple[float, float] | None
) -> Figure:
    if is_image(decoded[0]):
        bounds = bounds_of(decoded if bounds is None else np.asarray(bounds))
        figure = labelled_tiles(decoded, bounds, names, [f"{step:.2g}" for step in steps], title)
        figure.axes[0].set_xlabel(along)
        return figure
    flat = decoded.reshape(*decoded.shape[:2], -1)
    figure, panels = small_multiples(len(flat), 2.5, 1.9, columns=3, sharex=True, sharey=True)
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(steps)))
    labels = {1: (along, "E[x | z]"), 2: ("x[0]", "x[1]")}.get(flat.shape[2], ("element of x", "E[x | z]"))
    for axes, row, name in zip(panels, flat, names, strict=True):
        if flat.shape[2] <= 2:
            across, up = (steps, row[:, 0]) if flat.shape[2] == 1 else (row[:, 0], row[:, 1])
            axes.plot(across, up, color=GREY, linewidth=0.8)
            axes.scatter(across, up, color=colours, s=16, zorder=3)
        else:
            for values, colour in zip(row, colours, strict=True):
                axes.plot(values, color=colour, linewidth=1, marker="." if flat.shape[2] < 30 else None)
        axes.set_title(name)
        axes.grid()
    if flat.shape[2] > 1:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, len(steps) - 1), mpl.colors.ListedColormap(colours))
        ends = sorted({0, len(steps) - 1})
        bar = figure.colorbar(scale, ax=panels, shrink=0.8, label=along, ticks=ends)
        bar.ax.set_yticklabels([f"{steps[index]:.2g}" for index in ends])
    figure.supxlabel(labels[0], fontsize=9)
    figure.supylabel(labels[1], fontsize=9)
    figure.suptitle(title)
    return figure
