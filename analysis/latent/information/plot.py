"""Pictures of the information in latents: their KL, the aggregate posterior, and what each layer carries."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.plotting.distributions import marginals
from analysis.plotting.style import BLUE, CLASSES, INK, MAX_PANELS, RED, Array, names_of, numbers, same_size, styled


@styled
def plot_kl(kl: Array, error: Array | None = None, *, activity: Array | None = None, threshold: float = 0.01) -> Figure:
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
