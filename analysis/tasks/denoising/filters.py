"""Classical filters of noisy images (scikit-image), each with the options that are best on pairs whose truth is known.

A choice by clean images is one that users of noisy data alone do not have: it favours the filters.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]
# (image of shape (height, width), full intensity 1, options) -> image
type ImageFilter = Callable[..., Array]


@dataclass(frozen=True)
class ClassicalFilter:
    """A filter and the options that are tried.

    Attributes:
        function: ``function(image, **options)`` of one image ``(height, width)`` whose full intensity is 1.
        grid: values of each option.
    """

    function: ImageFilter
    grid: Mapping[str, tuple[Any, ...]]

    def options(self) -> Iterator[dict[str, Any]]:
        """Every combination of the grid."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


@dataclass(frozen=True)
class TunedFilter:
    """A filter with the options that were best on validation pairs.

    Attributes:
        name: key of `FILTERS`.
        options: the best of its grid.
        data_range: full intensity of the clean images.
        peak: mean count at full intensity, where the filter works on Anscombe-transformed counts; ``None`` elsewhere.
        mean_squared_error: on the validation pairs.
    """

    name: str
    options: dict[str, Any]
    data_range: float
    peak: float | None
    mean_squared_error: float

    def __call__(self, noisy: Array) -> Array:
        """Filtered images, shape of ``noisy``; see `filtered`."""
        return filtered(self.name, self.options, noisy, data_range=self.data_range, peak=self.peak)

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({shown}){' of Anscombe-transformed counts' if self.peak else ''}"


def _skimage(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"skimage.{module}")
    except ImportError:
        raise ValueError("classical filters require scikit-image; pip install 'vae_pyro[imaging]'") from None


def _gaussian(image: Array, *, sigma: float) -> Array:
    return np.asarray(_skimage("filters").gaussian(image, sigma=sigma, mode="nearest"))


def _median(image: Array, *, width: int, times: int) -> Array:
    footprint = np.ones((width, width)) if width % 2 else np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    for _ in range(times):
        image = _skimage("filters").median(image, footprint, mode="nearest")
    return image


def _tv_chambolle(image: Array, *, weight: float) -> Array:
    return np.asarray(_skimage("restoration").denoise_tv_chambolle(image, weight=weight))


def _nl_means(image: Array, *, h: float, patch_size: int) -> Array:
    function = _skimage("restoration").denoise_nl_means
    return np.asarray(function(image, h=h, patch_size=patch_size, patch_distance=5, fast_mode=True))


def _wavelet(image: Array, *, sigma: float, wavelet: str) -> Array:
    function = _skimage("restoration").denoise_wavelet
    try:
        return np.asarray(function(image, sigma=sigma, wavelet=wavelet, rescale_sigma=True))
    except ImportError:
        raise ValueError("the wavelet filter requires PyWavelets; pip install 'vae_pyro[imaging]'") from None


def _bilateral(image: Array, *, sigma_color: float, sigma_spatial: float) -> Array:
    low = float(image.min())  # it takes no negative values, and is the same for a shifted image
    function = _skimage("restoration").denoise_bilateral
    return np.asarray(function(image - low, sigma_color=sigma_color, sigma_spatial=sigma_spatial, mode="edge") + low)


FILTERS: dict[str, ClassicalFilter] = {
    "gaussian": ClassicalFilter(_gaussian, {"sigma": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3)}),
    # A width of 2 stands for the four neighbours and the pixel itself.
    "median": ClassicalFilter(_median, {"width": (2, 3, 5), "times": (1, 2)}),
    "tv_chambolle": ClassicalFilter(_tv_chambolle, {"weight": (0.03, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.55)}),
    "nl_means": ClassicalFilter(_nl_means, {"h": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4), "patch_size": (2, 3, 5)}),
    "wavelet": ClassicalFilter(_wavelet, {"sigma": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4), "wavelet": ("db1", "sym4")}),
    "bilateral": ClassicalFilter(
        _bilateral, {"sigma_color": (0.1, 0.2, 0.4, 0.8, 1.6), "sigma_spatial": (0.5, 0.8, 1.2, 2.0)}
    ),
}


def available_filters() -> tuple[str, ...]:
    """Names of the filters that can be used here: all, but for wavelets without PyWavelets.

    Raises:
        ValueError: there is no scikit-image.
    """
    from importlib.util import find_spec

    _skimage("restoration")
    return tuple(name for name in FILTERS if name != "wavelet" or find_spec("pywt") is not None)


def filtered(
    name: str, options: Mapping[str, Any], noisy: Array, *, data_range: float, peak: float | None = None
) -> Array:
    """Filter images one by one, channel by channel.

    Args:
        name: of `FILTERS`.
        options: of that filter, for images of full intensity 1.
        noisy: ``(datum, height, width)`` or ``(datum, channel, height, width)``, in units of the clean images.
        data_range: full intensity of the clean images.
        peak: the noise is Poisson with this mean count at full intensity; counts are transformed before the filter so
            that their variance is about the same everywhere, and back after it. ``None`` filters as they are.

    Returns:
        Shape of ``noisy``, float64.

    Raises:
        ValueError: an unknown filter, no images, or no scikit-image.

    References:
        Anscombe 1948, The transformation of Poisson, binomial and negative-binomial data, Biometrika 35.
        doi:10.1093/biomet/35.3-4.246
        Mäkitalo & Foi 2011, Optimal inversion of the Anscombe transformation in low-count Poisson image denoising, IEEE
        Transactions on Image Processing 20, eq. 4 (the asymptotically unbiased inverse).
        doi:10.1109/TIP.2010.2056693
    """
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}; choose from {', '.join(FILTERS)}")
    x = np.asarray(noisy, dtype=np.float64)
    if x.ndim not in (3, 4) or x.size == 0:
        raise ValueError(
            f"images of shape (datum, height, width) or (datum, channel, height, width) required, got {x.shape}"
        )
    x = x / data_range
    top = 1.0
    if peak is not None:
        top = 2 * float(np.sqrt(peak + 0.375))
        x = 2 * np.sqrt(np.maximum(peak * x + 0.375, 0)) / top
    function = FILTERS[name].function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images too small for so many wavelet levels
        flat = x.reshape(-1, *x.shape[-2:])
        done = np.stack([function(image, **options) for image in flat]).reshape(x.shape)
    if peak is not None:
        done = ((np.maximum(done, 0) * top / 2) ** 2 - 0.125) / peak
    return done * data_range


def tune_filter(name: str, noisy: Array, clean: Array, *, data_range: float, peak: float | None = None) -> TunedFilter:
    """The options of a filter with the least mean squared error on pairs of noisy and clean images.

    Args:
        name: of `FILTERS`.
        noisy: see `filtered`.
        clean: same shape.
        data_range: see `filtered`.
        peak: see `filtered`; the filter of untransformed images is tried as well, and taken where it is better.

    Raises:
        ValueError: other shapes, a number that is not finite, or see `filtered`.
    """
    seen, truth = np.asarray(noisy, dtype=np.float64), np.asarray(clean, dtype=np.float64)
    if seen.shape != truth.shape:  # which would broadcast, and compare each image with all
        raise ValueError(f"noisy and clean images must have one shape, got {seen.shape} and {truth.shape}")
    if not (np.isfinite(seen).all() and np.isfinite(truth).all()):
        raise ValueError("noisy and clean images are finite numbers, and some of them are not")
    best: TunedFilter | None = None
    for options in FILTERS[name].options() if name in FILTERS else [{}]:
        for transform in (None,) if peak is None else (None, peak):
            estimate = filtered(name, options, seen, data_range=data_range, peak=transform)
            error = float(((estimate - truth) ** 2).mean())
            if best is None or error < best.mean_squared_error:
                best = TunedFilter(name, options, data_range, transform, error)
    assert best is not None
    return best
