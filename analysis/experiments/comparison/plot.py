"""Variants of an experiment side by side: log p(x) with both sources of error, agreement of seeds, training curves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import (
    BLUE,
    CLASSES,
    GREY,
    INK,
    MAX_LEGEND,
    RED,
    Array,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)

_MAX_NAME = 34
_DASHES = ("-", "--", "-.", ":")


class Forest(NamedTuple):
    """Rows of estimates with their intervals.

    Attributes:
        names: of the rows.
        runs: estimate of each seed, ``(row, seed)``.
        intervals: lower and upper end of the interval of both sources of error, ``(row, 2)``.
        within: half-width of the part of the interval that is of the test data, ``(row,)``.
        significant: whether the row differs significantly from 0, ``(row,)``; ``None`` where it is not tested.
    """

    names: Sequence[str]
    runs: Array
    intervals: Array
    within: Array
    significant: Sequence[bool] | None = None


@styled
def plot_variants(levels: Forest, differences: Forest | None = None, *, baseline: str = "the baseline") -> Figure:
    """log p(x) of each variant, and its difference from the baseline, with every seed as a dot.

    A thin line is the 95 % interval over seeds and test data; its thick part is the share of the test data alone.
    A significant difference has a filled diamond, any other an empty one. Differences are paired, so their intervals
    can be far shorter than those of the two levels.

    Args:
        levels: mean log p(x), nats per datum.
        differences: from the baseline, nats per datum.
        baseline: its name, for the axis.

    Raises:
        ValueError: shapes that do not match, or a value that is not finite.
    """
    forests = [levels] if differences is None or not len(differences.names) else [levels, differences]
    rows = max(len(forest.names) for forest in forests)
    width = 8.8 if len(forests) == 2 else 6.4
    figure = Figure(figsize=(width, 0.36 * rows + 1.35), layout="constrained")
    panels = figure.subplots(1, len(forests), squeeze=False)[0]
    for axes, forest in zip(panels, forests, strict=True):
        _draw_forest(axes, forest, rows)
    panels[0].set_xlabel("mean log p(x), nats per datum")
    if len(forests) == 2:
        panels[1].axvline(0, color=INK, linestyle=":", linewidth=1.0)
        panels[1].set_xlabel(f"log p(x) minus that of {_shortened(baseline, 22)}, nats per datum")
    handles: dict[str, Any] = {}
    for axes in panels:
        found, names = axes.get_legend_handles_labels()
        handles |= dict(zip(names, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def _draw_forest(axes: Any, forest: Forest, rows: int) -> None:
    runs = numbers("runs", forest.runs, "row", "seed")
    intervals = numbers("intervals", forest.intervals, "row", "end")
    within = numbers("within", forest.within, "row")
    names = [_shortened(name) for name in names_of(forest.names, len(runs))]
    same_size("within", within, len(runs), "runs")
    same_size("intervals", intervals.T, len(runs), "runs")
    place, mean = np.arange(len(runs))[::-1], runs.mean(1)
    low, high = np.maximum(mean - within, intervals[:, 0]), np.minimum(mean + within, intervals[:, 1])
    axes.hlines(place, *intervals.T, color=BLUE, linewidth=1.3, label="95 % interval, seeds and test data")
    axes.hlines(place, low, high, color=BLUE, linewidth=4.5, alpha=0.45, label="part of the test data")
    spread = np.linspace(-0.14, 0.14, runs.shape[1]) if runs.shape[1] > 1 else np.zeros(1)
    axes.scatter(runs, place[:, None] - 0.2 + 0.4 * spread, s=11, color=GREY, linewidth=0, zorder=3, label="each seed")
    tested = forest.significant is not None
    significant = np.asarray(forest.significant, dtype=bool) if tested else np.ones(len(runs), bool)
    same_size("significant", significant, len(runs), "runs")
    kinds = ((significant, BLUE, "significant difference"), (~significant, "white", "not significant"))
    for chosen, colour, name in kinds:
        if chosen.any():
            label = name if tested else "mean"
            shape = "D" if tested else "o"
            axes.scatter(
                mean[chosen], place[chosen], s=34, marker=shape, facecolor=colour, edgecolor=BLUE, zorder=4, label=label
            )
    axes.set_yticks(place, names)
    axes.set_ylim(place[0] - rows + 0.45, place[0] + 0.55)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.margins(x=0.08)
    axes.grid(axis="x")


@styled
def plot_agreement(names: Sequence[str], cka: Sequence[Array], udr: Sequence[Array]) -> Figure:
    """Agreement of the latent spaces of pairs of seeds, a mark for each pair and a line at their mean.

    Args:
        names: of the variants.
        cka: linear CKA of the pairs of each variant, NaN where a pair has none.
        udr: UDR likewise.

    Raises:
        ValueError: numbers of names and of values that differ.
    """
    names = [_shortened(name) for name in names_of(names, len(cka))]
    if len(udr) != len(cka):
        raise ValueError(f"{len(cka)} variants have a CKA and {len(udr)} a UDR; give both of each")
    figure = Figure(figsize=(7.2, 0.4 * len(names) + 1.3), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))[::-1]
    kinds = (("linear CKA: the same space", cka, BLUE, "o", 0.13), ("UDR: the same axes", udr, RED, "^", -0.13))
    for label, scores, colour, marker, shift in kinds:
        for y, each in zip(place, scores, strict=True):
            values = np.asarray(each, dtype=np.float64).ravel()
            values = values[np.isfinite(values)]
            axes.scatter(
                values, np.full(len(values), y + shift), s=20, marker=marker, color=colour, alpha=0.7, linewidth=0,
                label=label if y == place[0] else None,
            )  # fmt: skip
            if len(values):
                axes.vlines(values.mean(), y + shift - 0.11, y + shift + 0.11, color=colour, linewidth=2)
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", length=0)
    low, _ = axes.get_xlim()
    axes.set(xlabel="agreement of two seeds; the line is the mean over pairs", xlim=(min(low, -0.02), 1.03))
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def plot_curves(
    curves: Mapping[str, Sequence[tuple[Array, Array]]], *, ylabel: str = "validation ELBO, nats per datum"
) -> Figure:
    """Training curves of variants: every seed as a thin line, their mean as a thick one up to the shortest curve.

    With more than 12 variants each has a panel of its own.

    Args:
        curves: for each variant, epochs and values of each seed.
        ylabel: what the values are.

    Raises:
        ValueError: no curves, or a curve with a different number of epochs and values.
    """
    if not curves or not all(curves.values()):
        raise ValueError("no training curves; give at least one seed's history for each variant")
    pairs = {
        name: [(numbers("epochs", e, "epoch"), np.asarray(v, dtype=np.float64)) for e, v in each]
        for name, each in curves.items()
    }
    for name, each in pairs.items():
        for epochs, values in each:
            same_size(f"the curve of {name}", values, len(epochs), "epochs")
    if len(pairs) > MAX_LEGEND:
        figure, panels = small_multiples(len(pairs), 2.2, 1.7, sharex=True, sharey=True)
    else:
        figure = Figure(figsize=(7.6, 3.4), layout="constrained")
        panels = [figure.subplots()] * len(pairs)
    alone = len(pairs) <= MAX_LEGEND
    for index, ((name, each), axes) in enumerate(zip(pairs.items(), panels, strict=True)):
        colour = CLASSES[index % len(CLASSES)] if alone else BLUE
        dash = _DASHES[index % len(_DASHES)] if alone else "-"
        shortest = min(len(values) for _, values in each)
        marker = "o" if shortest < 3 else None
        for epochs, values in each:
            axes.plot(epochs, values, color=colour, linewidth=0.6, alpha=0.55, linestyle=dash, marker=marker, ms=2)
        mean = np.mean([values[:shortest] for _, values in each], axis=0)
        label = f"{_shortened(name)}, {len(each)} seed{'s' * (len(each) > 1)}"
        axes.plot(each[0][0][:shortest], mean, color=colour, linewidth=1.9, linestyle=dash, marker=marker, label=label)
        if not alone:
            axes.set_title(_shortened(name), fontsize=7.5)
    for axes in dict.fromkeys(panels):
        _clip(axes, [values for each in pairs.values() for _, values in each])
        axes.grid()
    if alone:
        panels[0].set(xlabel="epoch", ylabel=ylabel)
        panels[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel(ylabel, fontsize=9)
    return figure


def _clip(axes: Any, curves: Sequence[Array]) -> None:
    # Values of the first epochs can be a hundred times larger and would flatten the later ones, where variants differ.
    settled = np.concatenate([values[len(values) // 5 :] for values in curves if len(values) >= 10] or [np.empty(0)])
    settled = settled[np.isfinite(settled)]
    if len(settled) and np.ptp(settled) > 0:
        low, high = axes.get_ylim()
        spread = 0.3 * float(np.ptp(settled))
        axes.set_ylim(max(low, settled.min() - spread), min(high, settled.max() + spread))


def _shortened(name: str, max_length: int = _MAX_NAME) -> str:
    name = " ".join(str(name).split())
    if len(name) > max_length:
        tail = (max_length - 1) // 2
        name = f"{name[: max_length - 1 - tail]}…{name[len(name) - tail :]}"
    return name.replace("$", r"\$")  # matplotlib would read a formula
