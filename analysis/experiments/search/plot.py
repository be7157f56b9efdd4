"""Plots of a search over settings: progress, learning curves of the trials, and effects of settings on the ELBO."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.plotting.style import (
    BLUE,
    GREY,
    INK,
    MAX_PANELS,
    RED,
    Array,
    names_of,
    numbers,
    same_size,
    small_multiples,
    styled,
)

_ELBO = "validation ELBO, nats per datum"
# An axis ends this many (best - median) below the best value; lower values are drawn on its edge.
_SPREADS = 5
_MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": BLUE, "facecolor": BLUE, "label": "complete"},
    "pruned": {"marker": "o", "color": GREY, "facecolor": "white", "label": "pruned, best before"},
    "failed": {"marker": "x", "color": RED, "facecolor": RED, "label": "failed"},
}
_MAX_LABEL = 14


@dataclass(frozen=True)
class Axis:
    """One searched setting as an axis.

    Attributes:
        name: of the setting.
        values: for each trial, ``(trial,)``; positions in ``labels`` where the setting is a choice.
        log: logarithmic axis.
        labels: of the choices.
    """

    name: str
    values: Array
    log: bool = False
    labels: tuple[str, ...] = ()


def _floor(values: Array) -> float:
    """Lower end of the axis, above the worst trials, which would flatten all the others."""
    top, middle = float(values.max()), float(np.median(values))
    low = float(values.min())
    return max(low, top - _SPREADS * (top - middle)) if top > middle else low


def _limit(axes: Any, values: Array) -> float:
    low, top = _floor(values), float(values.max())
    margin = 0.06 * (top - low) or 1.0
    axes.set_ylim(low - 2 * margin, top + margin)
    return low - margin


def _checked(value: Any, states: Sequence[str]) -> tuple[Array, Array]:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).any():
        raise ValueError(f"value must have shape (trial,) and at least one finite entry; got {array}")
    array = np.where(np.isfinite(array), array, np.nan)
    state = np.asarray(states)
    same_size("states", state, len(array), "value")
    unknown = sorted(set(states) - {*_MARKS, "running", "stopped"})
    if unknown:
        raise ValueError(f"unknown state {unknown[0]!r}; choose from {', '.join(_MARKS)}")
    return array, state


def _scatter(axes: Any, across: Array, value: Array, state: Array, edge: float) -> None:
    for name, mark in _MARKS.items():
        chosen = state == name
        if not chosen.any():
            continue
        up = np.full(int(chosen.sum()), edge) if name == "failed" else value[chosen]
        seen = np.isfinite(up)
        low = up < edge
        style: dict[str, Any] = {"s": 26, "linewidth": 1.1, "color": mark["facecolor"], "zorder": 3}
        if name != "failed":
            style["edgecolor"] = mark["color"]
        inside = seen & ~low
        axes.scatter(across[chosen][inside], up[inside], marker=mark["marker"], label=mark["label"], **style)
        if (seen & low).any():
            axes.scatter(across[chosen][seen & low], np.full(int((seen & low).sum()), edge), marker="v", **style)


def _legend(figure: Figure) -> None:
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=len(found))


@styled
def plot_search_history(value: Array, states: Sequence[str]) -> Figure:
    """Validation ELBO of each trial, and the best complete one so far.

    Args:
        value: ``(trial,)``, nats per datum; NaN or -inf where a trial has none. A value far below the others is
            drawn as a triangle on the lower edge.
        states: ``complete``, ``pruned``, ``failed`` or another, for each trial.

    Raises:
        ValueError: no trial has a value, or shapes that do not match.
    """
    value, state = _checked(value, states)
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    axes = figure.subplots()
    number = np.arange(len(value))
    edge = _limit(axes, value[np.isfinite(value)])
    complete = np.where((state == "complete") & np.isfinite(value), value, -np.inf)
    best = np.maximum.accumulate(complete)
    first = int(np.argmax(np.isfinite(best)))
    if np.isfinite(best).any():
        axes.step(number[first:], best[first:], where="post", color=INK, linewidth=1.1, label="best so far")
    _scatter(axes, number, value, state, edge)
    axes.set(xlabel="trial", ylabel=_ELBO)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid()
    _legend(figure)
    return figure


@styled
def plot_learning_curves(curves: Sequence[Mapping[int, float]], states: Sequence[str], *, best: int) -> Figure:
    """Validation ELBO by epoch of each trial; pruned trials end in a cross.

    Args:
        curves: of each trial, validation ELBO by epoch, nats per datum; empty where there is none.
        states: see `plot_search_history`.
        best: index of the trial that was chosen.

    Raises:
        ValueError: no trial has a curve, or shapes that do not match.
    """
    if len(curves) != len(states):
        raise ValueError(f"{len(states)} states for {len(curves)} curves; give one state for each curve")
    every = np.array([value for curve in curves for value in curve.values()])
    if every.size == 0:
        raise ValueError("no trial has a learning curve")
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for index, (curve, state) in enumerate(zip(curves, states, strict=True)):
        if not curve:
            continue
        epoch, value = list(curve), list(curve.values())
        chosen = index == best
        style: dict[str, Any] = {
            "color": GREY,
            "linewidth": 0.9,
            "linestyle": "--",
            "label": "pruned (x) or unfinished",
        }
        if state == "complete":
            style = {"color": BLUE, "linewidth": 0.9, "alpha": 0.65, "label": "complete"}
        if chosen:
            style = {"color": RED, "linewidth": 2.2, "zorder": 4, "label": "the best"}
        axes.plot(epoch, value, marker="." if len(epoch) < 3 else None, **style)
        if state == "pruned":
            axes.plot(epoch[-1:], value[-1:], "x", color=INK, markersize=5, zorder=3)
    _limit(axes, every)
    axes.set(xlabel="epoch", ylabel=_ELBO)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid()
    _legend(figure)
    return figure


@styled
def plot_slices(axis: Sequence[Axis], value: Array, states: Sequence[str], *, best: int) -> Figure:
    """Validation ELBO against one setting at a time; the other settings vary too. At most twelve are shown.

    Args:
        axis: the settings.
        value: see `plot_search_history`; failed trials are drawn on the lower edge.
        states: likewise.
        best: index of the trial that was chosen; circled.

    Raises:
        ValueError: no trial has a value, or shapes that do not match.
    """
    value, state = _checked(value, states)
    for one in axis:
        same_size(one.name, one.values, len(value), "value")
    shown = axis[:MAX_PANELS]
    figure, panels = small_multiples(len(shown), 2.5, 2.3, columns=3, sharey=True)
    for axes, one in zip(panels, shown, strict=True):
        edge = _limit(axes, value[np.isfinite(value)])
        _scatter(axes, one.values, value, state, edge)
        axes.scatter(one.values[best], value[best], s=110, facecolor="none", edgecolor=RED, linewidth=1.6, zorder=4,
                     label="the best")  # fmt: skip
        _dress(axes, "x", one)
        axes.grid()
    figure.supylabel(_ELBO, fontsize=9)
    _legend(figure)
    return figure


def _dress(axes: Any, which: str, axis: Axis) -> None:
    place = getattr(axes, f"{which}axis")
    place.set_label_text(axis.name)
    if axis.log:
        getattr(axes, f"set_{which}scale")("log")
        seen = axis.values[np.isfinite(axis.values)]
        if seen.max() < 300 * seen.min():  # too few powers of ten for the axis to be readable
            place.set_major_locator(LogLocator(subs=(1, 2, 5) if seen.max() < 30 * seen.min() else (1, 3)))
            place.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            place.set_minor_locator(NullLocator())
    elif axis.labels:
        names = [label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…" for label in axis.labels]
        place.set_ticks(range(len(names)), names)
        getattr(axes, f"set_{which}lim")(-0.5, len(names) - 0.5)


@styled
def plot_importance(names: Sequence[str], importance: Array, error: Array | None = None) -> Figure:
    """Share of the variance over the space that each setting explains alone or with others.

    Args:
        names: of the settings.
        importance: ``(setting,)``, sums to 1.
        error: standard errors, ``(setting,)``.

    Raises:
        ValueError: shapes that do not match, or a value that is not finite.
    """
    share = numbers("importance", importance, "setting")
    names = names_of(names, len(share))
    spread = None if error is None else numbers("error", error, "setting")
    if spread is not None:
        same_size("error", spread, len(share), "importance")
    order = np.argsort(share, kind="stable")
    figure = Figure(figsize=(6.4, 0.34 * len(share) + 1.0), layout="constrained")
    axes = figure.subplots()
    axes.barh(np.arange(len(share)), share[order], color=BLUE, height=0.6)
    if spread is not None:
        axes.errorbar(share[order], np.arange(len(share)), xerr=spread[order], fmt="none", ecolor=INK, capsize=2)
    axes.set_yticks(range(len(share)), [names[index] for index in order])
    axes.set(xlabel="importance (share of variance)", xlim=(0, None))
    axes.grid(axis="x")
    return figure


@styled
def plot_two_settings(first: Axis, second: Axis, value: Array, states: Sequence[str], *, best: int) -> Figure:
    """Trials in the plane of two settings, coloured by their validation ELBO.

    Args:
        first: horizontal axis.
        second: vertical axis.
        value: see `plot_search_history`.
        states: likewise.
        best: index of the trial that was chosen; circled.

    Raises:
        ValueError: no trial has a value, or shapes that do not match.
    """
    value, state = _checked(value, states)
    for one in (first, second):
        same_size(one.name, one.values, len(value), "value")
    figure = Figure(figsize=(6.2, 3.9), layout="constrained")
    axes = figure.subplots()
    seen = np.isfinite(value)
    low, top = _floor(value[seen]), float(value[seen].max())
    other = ~np.isin(state, ["complete", "pruned"])
    for name, marker, which in (
        ("complete", "o", state == "complete"), ("pruned", "s", state == "pruned"), ("unfinished", "D", other),
    ):  # fmt: skip
        chosen = seen & which & (state != "failed")
        if chosen.any():
            drawn = axes.scatter(
                first.values[chosen], second.values[chosen], c=value[chosen], cmap="viridis", vmin=low, vmax=top,
                marker=marker, s=38, edgecolor=INK, linewidth=0.5, label=name, zorder=3,
            )  # fmt: skip
    failed = state == "failed"
    if failed.any():
        axes.scatter(first.values[failed], second.values[failed], marker="x", color=RED, s=30, label="failed")
    axes.scatter(first.values[best], second.values[best], s=130, facecolor="none", edgecolor=RED, linewidth=1.6,
                 label="the best", zorder=4)  # fmt: skip
    _dress(axes, "x", first)
    _dress(axes, "y", second)
    figure.colorbar(drawn, ax=axes, label=_ELBO, extend="min" if value[seen].min() < low else "neither")
    axes.grid()
    _legend(figure)
    return figure
