"""The reliability diagram of predicted classes."""

import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, GREY, RED, Array, numbers, same_size, styled


@styled
def plot_reliability(confidence: Array, accuracy: Array, low: Array, high: Array) -> Figure:
    """Accuracy against confidence in bins, with the interval that calibrated probabilities give in 95 % of cases.

    Args:
        confidence: mean probability of the most probable class in each bin, ``(bin,)``.
        accuracy: share of the bin in which it is the true one, ``(bin,)``.
        low: lower end of the consistency bar, ``(bin,)``.
        high: its upper end, ``(bin,)``.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.

    References:
        Bröcker & Smith 2007, Increasing the reliability of reliability diagrams, Weather and Forecasting 22.
        doi:10.1175/WAF993.1
    """
    across = numbers("confidence", confidence, "bin")
    up, lower, upper = (numbers(n, v, "bin") for n, v in (("accuracy", accuracy), ("low", low), ("high", high)))
    for name, array in (("accuracy", up), ("low", lower), ("high", upper)):
        same_size(name, array, len(across), "confidence")
    outside = (up < lower) | (up > upper)
    figure = Figure(figsize=(4.6, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, label="calibrated")
    axes.vlines(across, lower, upper, color=GREY, alpha=0.5, linewidth=4, label="95 % if calibrated")
    for chosen, marker, colour, label in ((~outside, "o", BLUE, "inside"), (outside, "X", RED, "outside")):
        if chosen.any():
            axes.plot(across[chosen], up[chosen], marker, color=colour, markersize=5, label=label)
    start = float(np.clip(min(across.min(), up.min(), lower.min()) - 0.05, 0, 1))
    axes.set(xlim=(start, 1.02), ylim=(start, 1.02), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.legend(loc="upper left")
    axes.grid()
    return figure
