"""Pictures of generated data beside real ones."""

from math import ceil, sqrt

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.distributions import marginals
from analysis.plotting.style import BLUE, MAX_PANELS, RED, Array, names_of, styled
from analysis.plotting.tiles import as_grid, bounds_of, events, is_image, show_tiles


@styled
def plot_samples(x: Array, samples: Array) -> Figure:
    """Draws of the model beside data, by eye: images in two grids, points in two planes, else element by element.

    Args:
        x: data, ``(datum, *x_shape)``; at most 49 images are shown.
        samples: draws from the prior predictive, or their expectations, ``(draw, *x_shape)``.

    Raises:
        ValueError: no data or draws, or other event shapes.
    """
    x, samples = events("x", x), events("samples", samples)
    if x.shape[1:] != samples.shape[1:]:
        raise ValueError(f"samples of event shape {x.shape[1:]} required, as x has; got {samples.shape[1:]}")
    titles = ("data", "samples, z from the prior")
    if is_image(x):
        bounds = bounds_of(x)
        x, samples = x[:49], samples[:49]
        columns = ceil(sqrt(max(len(x), len(samples))))
        rows = ceil(max(len(x), len(samples)) / columns)
        side = min(0.6, 3.7 / columns)
        figure = Figure(figsize=(max(2 * side * columns + 0.3, 3.6), side * rows + 0.35), layout="constrained")
        for axes, images, title in zip(figure.subplots(1, 2), (x, samples), titles, strict=True):
            show_tiles(axes, as_grid(images, columns), bounds)
            axes.set_title(title)
        return figure
    x, samples = x.reshape(len(x), -1), samples.reshape(len(samples), -1)
    if x.shape[1] == 2:
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        grid = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, points, title, colour in zip(grid, (x, samples), titles, (RED, BLUE), strict=True):
            axes.scatter(points[:, 0], points[:, 1], s=8, alpha=0.6, color=colour)
            axes.set(title=f"{title}, n = {len(points):,}", xlabel="x[0]", ylabel="x[1]")
            axes.grid()
        return figure
    if x.shape[1] <= MAX_PANELS:
        return marginals(x, samples, names_of(None, x.shape[1], "x"), titles)
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    element = np.arange(x.shape[1])
    for values, colour, title, line in ((x, RED, titles[0], "-"), (samples, BLUE, titles[1], "--")):
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95], axis=0)
        axes.fill_between(element, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(element, middle, color=colour, linestyle=line, label=f"{title}: median, 5 % to 95 %")
    axes.set(xlabel="element of x", ylabel="value")
    axes.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
