"""Layers of latents: what each carries, and each of its dimensions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.plotting.style import BLUE, CLASSES, INK, RED, Array, numbers, same_size, styled


@styled
def plot_layers(
    names: Sequence[str],
    kl: Array,
    error: Array | None = None,
    *,
    dimension_kl: Sequence[Array | None] | None = None,
    threshold: float = 0.01,
) -> Figure:
    """The part of the KL that each layer carries, and the KL of each of its dimensions in falling order.

    Args:
        names: of the layers, the one that the decoder reads first.
        kl: of each layer, averaged over data, nats, ``(layer,)``; a part that is no KL may be negative.
        error: standard errors, ``(layer,)``.
        dimension_kl: for each layer the KL of its dimensions averaged over data, ``(latent,)``, or ``None``; a second
            panel.
        threshold: a dashed line in the second panel, nats.

    Raises:
        ValueError: shapes that do not belong together, or a value that is not finite.
    """
    values = numbers("kl", kl, "layer")
    errors = None if error is None else numbers("error", error, "layer")
    if len(names) != len(values):
        raise ValueError(f"{len(names)} names for {len(values)} layers")
    if errors is not None:
        same_size("error", errors, len(values), "kl")
    each = [] if dimension_kl is None else list(dimension_kl)
    if dimension_kl is not None and len(each) != len(values):
        raise ValueError(f"dimension_kl has {len(each)} entries for {len(values)} layers")
    shown = [
        (name, numbers("dimension_kl", part, "latent"))
        for name, part in zip(names, each, strict=False)
        if part is not None
    ]
    figure = Figure(figsize=(7.6 if shown else 3.8, 2.6), layout="constrained")
    panels = figure.subplots(1, 2 if shown else 1, squeeze=False).ravel()
    place = np.arange(len(values))
    panels[0].barh(place, values, color=BLUE, height=0.6)
    if errors is not None:
        panels[0].errorbar(values, place, xerr=errors, fmt="none", ecolor=INK, capsize=2, linewidth=0.9)
    panels[0].axvline(0, color=INK, linewidth=0.8)
    panels[0].set(xlabel="KL, nats per datum", title="Part of each layer")
    panels[0].set_yticks(place, names)
    if shown:
        for number, (name, part) in enumerate(shown):
            ordered = np.sort(part)[::-1]
            marker = "osD^v"[number % 5]
            panels[1].plot(
                np.arange(1, len(ordered) + 1),
                ordered,
                color=CLASSES[number % len(CLASSES)],
                marker=marker,
                markersize=3,
                label=name,
            )
        panels[1].axhline(threshold, color=RED, linestyle="--", linewidth=1)
        panels[1].set_yscale("symlog", linthresh=threshold)
        # Margins that this scale does not leave by itself.
        highest, lowest = (pick(float(pick(part)) for _, part in shown) for pick in (max, min))
        panels[1].set_ylim(min(1.8 * lowest, -0.2 * threshold), 1.8 * max(highest, threshold))
        panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].set(xlabel="dimensions, in falling order", ylabel="KL, nats", title="Each dimension")
        panels[1].legend()
    return figure
