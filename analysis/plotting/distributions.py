"""Histograms: of one sample, and of two over one another."""

from math import sqrt

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, RED, Array, small_multiples


def bin_edges(values: Array, size: int) -> Array:
    """Edges for a histogram of ``size`` values, over the range of ``values``."""
    edges: Array = np.histogram_bin_edges(values, bins=int(np.clip(2 * sqrt(size), 5, 40)))
    return edges


def density(values: Array, edges: Array) -> Array:
    """Heights of a histogram whose whole area is the share of values inside the edges."""
    counts, _ = np.histogram(values, edges)
    height: Array = counts / (max(len(values), 1) * np.diff(edges))
    return height


def marginals(first: Array, second: Array, names: list[str], titles: tuple[str, str]) -> Figure:
    """Histograms of the columns of two arrays, one over the other."""
    figure, panels = small_multiples(len(names), 2.0, 1.6)
    for index, (axes, name) in enumerate(zip(panels, names, strict=True)):
        one, two = first[:, index], second[:, index]
        one, two = one[~np.isnan(one)], two[~np.isnan(two)]
        edges = bin_edges(np.concatenate([one, two]), min(len(one), len(two)))
        axes.stairs(density(one, edges), edges, fill=True, color=RED, alpha=0.35, label=titles[0])
        axes.stairs(density(two, edges), edges, color=BLUE, linewidth=1.4, label=titles[1])
        axes.set(title=name, yticks=[])
        axes.spines.left.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
