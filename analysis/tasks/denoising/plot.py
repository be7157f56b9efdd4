"""Pictures of denoising: noisy data beside the posterior of the clean signal, and its calibration."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.plotting.style import BLUE, GREY, RED, Array, numbers, same_size, small_multiples, styled
from analysis.plotting.tiles import bounds_of, events, is_image

_SHOWN, _SERIES = 10, 6


@styled
def plot_denoised(
    noisy: Array, mean: Array, sd: Array, *, clean: Array | None = None, others: dict[str, Array] | None = None
) -> Figure:
    """Noisy data above the posterior mean of their clean signal and its standard deviation.

    Args:
        noisy: ``(datum, *x_shape)``, in units of the clean signal; NaN is shown as hidden. Ten images, or six of other
            data, are shown at most.
        mean: posterior mean of the clean signal, same shape.
        sd: its standard deviation, same shape.
        clean: the truth, same shape, where it is known.
        others: other estimates by name, same shape; of images alone.

    Raises:
        ValueError: no data, other shapes, or a negative standard deviation.
    """
    given = {"noisy": noisy, "mean": mean, "sd": sd} | ({} if clean is None else {"clean": clean}) | (others or {})
    arrays = {name: events(name, array) for name, array in given.items()}
    for name, array in arrays.items():
        if array.shape != arrays["noisy"].shape:
            raise ValueError(f"{name} of the shape of noisy, {arrays['noisy'].shape}, required; got {array.shape}")
    if (arrays["sd"] < 0).any():
        raise ValueError(f"sd holds a negative standard deviation, {np.nanmin(arrays['sd']):g}")
    order = [*(["clean"] if clean is not None else []), "noisy", *(others or {}), "mean", "sd"]
    if is_image(arrays["noisy"]):
        return _images({name: arrays[name][:_SHOWN] for name in order})
    return _series({name: array.reshape(len(array), -1)[:_SERIES] for name, array in arrays.items()})


def _images(arrays: dict[str, Array]) -> Figure:
    count = len(arrays["noisy"])
    shown = arrays["clean"] if "clean" in arrays else arrays["mean"]
    low, high = bounds_of(shown)
    top = max(float(np.nanmax(arrays["sd"])), 1e-12)
    width = max(0.78 * count + 1.3, 3.6)
    figure = Figure(figsize=(width, 0.8 * len(arrays) + 0.4), layout="constrained")
    grid = figure.subplots(len(arrays), count, squeeze=False)
    grey = mpl.colormaps["gray_r"].with_extremes(bad="#e8c9b5")
    for row, (name, images) in zip(grid, arrays.items(), strict=True):
        for axes, image in zip(row, images, strict=True):
            _picture(axes, image, *((0.0, top, "Purples") if name == "sd" else (low, high, grey)))
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, top), "Purples")
    bar = figure.colorbar(scale, ax=list(grid[-1]), aspect=8, pad=0.01, ticks=[0, top], format="%.2g")
    bar.ax.tick_params(labelsize=7)
    figure.suptitle("noisy data, and the clean signal's posterior mean and sd")
    return figure


def _picture(axes: Any, image: Array, low: float, high: float, colours: Any) -> None:
    if image.ndim == 3 and image.shape[0] == 3 and colours != "Purples":
        axes.imshow(np.clip((np.nan_to_num(np.moveaxis(image, 0, -1)) - low) / (high - low), 0, 1))
    else:
        flat = image.mean(0) if image.ndim == 3 else image
        axes.imshow(flat, vmin=low, vmax=high, cmap=colours)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _series(arrays: dict[str, Array]) -> Figure:
    noisy, mean, sd = (arrays[name] for name in ("noisy", "mean", "sd"))
    figure, panels = small_multiples(len(noisy), 2.7, 2.0, columns=3, sharey=True)
    element = np.arange(noisy.shape[1])
    for index, axes in enumerate(panels):
        axes.fill_between(
            element, mean[index] - 2 * sd[index], mean[index] + 2 * sd[index], color=BLUE, alpha=0.25, linewidth=0,
            label="mean ± 2 sd",
        )  # fmt: skip
        axes.plot(element, mean[index], color=BLUE, linewidth=1.1)
        axes.plot(element, noisy[index], ".", color=RED, markersize=3, label="noisy")
        if "clean" in arrays:
            axes.plot(element, arrays["clean"][index], "--", color=GREY, linewidth=1, label="clean")
        axes.set_title(f"datum {index}")
        axes.grid(axis="y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def plot_calibration(share: Array, error: Array) -> Figure:
    """PIT values of the clean signal: the share in each bin, and its error over data; flat where it is calibrated.

    A bowl is a posterior that is too narrow, a hump one that is too wide, a slope one that is biased.

    Args:
        share: of each bin, ``(bin,)``.
        error: standard error of each, in which elements of a datum may depend, ``(bin,)``.

    Raises:
        ValueError: other shapes, or a value that is not finite.
    """
    height, bar = numbers("share", share, "bin"), numbers("error", error, "bin")
    same_size("error", bar, len(height), "share")
    figure = Figure(figsize=(4.4, 2.8), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, len(height) + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    off = np.abs(height - 1 / len(height)) > 1.96 * bar
    axes.axhline(1 / len(height), color=GREY, linewidth=0.9, label="calibrated")
    axes.stairs(height, edges, fill=True, color=BLUE, alpha=0.25)
    axes.errorbar(middle, height, 1.96 * bar, fmt="none", ecolor=BLUE, label="share, 95 %")
    axes.plot(middle[off], height[off], "x", color=RED, markersize=5, label="off")
    axes.set(xlabel="PIT of the clean signal", ylabel="share of elements", xlim=(0, 1), ylim=(0, None))
    axes.legend(loc="lower center", ncols=3)
    return figure
