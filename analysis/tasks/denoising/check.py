"""Score a VAE's posterior of the clean signal on data whose truth is known, beside classical filters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from analysis.tasks.denoising.calibration import denoise_and_calibrate
from analysis.tasks.denoising.filters import available_filters, tune_filter
from analysis.tasks.denoising.psnr import psnr
from analysis.tasks.denoising.result import DenoisingCheck
from vae_pyro.applications.denoising import noise_of
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]


def check_denoising(
    vae: VAE,
    noisy: Split | torch.Tensor | Array,
    clean: torch.Tensor | Array,
    *,
    data_range: float,
    validation: tuple[Array, Array] | None = None,
    filters: Sequence[str] | None = None,
    level: float = 0.9,
    num_draws: int = 500,
    seed: int = 0,
) -> DenoisingCheck:
    """Score a VAE's posterior of the clean signal on data whose truth is known, beside classical filters.

    The VAE sees no clean data. The filters have the options that were best on ``validation``.

    Args:
        vae: with a stated noise.
        noisy: held-out noisy data, ``(datum, *x_shape)``, all of them observed: filters know of no missing elements.
        clean: their truth, same shape, in units of the clean signal.
        data_range: full intensity of clean data, see `psnr`.
        validation: noisy and clean images that the filters' options are chosen on; ``None`` for no filters.
        filters: names; all that can be used here if not given.
        level: of the intervals.
        num_draws: for each datum.
        seed: of the draws.

    Raises:
        ValueError: a VAE without noise, data of another shape, missing or not finite elements, too few data (see
            `calibrate_denoising`), or filters without scikit-image.
    """
    noise = noise_of(vae)
    # Mean count at full intensity; the noise's own peak is that of a clean signal of 1.
    peak = None if noise.peak is None else noise.peak * data_range
    split = as_split(noisy).fixed(derive_seed(seed, 0))
    truth = np.asarray(clean, dtype=np.float64)

    def images(x: Any) -> Array:
        return noise.rescaled(torch.as_tensor(np.asarray(x), dtype=torch.float64)).numpy()

    x, given = split.batch(slice(None), torch.float64)
    if "mask" in given and not given["mask"].all():
        # Filters and the PSNR of noisy data would use what stands in the place of a missing element.
        raise ValueError(
            f"the comparison with filters requires complete data, and {int((~given['mask']).sum())} are missing; "
            "leave incomplete data out, or call denoise() or calibrate_denoising(), which take them"
        )
    seen = images(x.cpu())
    denoised, calibration = denoise_and_calibrate(vae, split, truth, level=level, num_draws=num_draws, seed=seed)
    scored = []
    if validation is not None:
        for name in available_filters() if filters is None else filters:
            tuned = tune_filter(
                name, images(validation[0]), np.asarray(validation[1]), data_range=data_range, peak=peak
            )
            scored.append((tuned, psnr(truth, tuned(seen), data_range=data_range, method=name)))
    return DenoisingCheck(
        denoised=denoised,
        vae=psnr(truth, denoised.mean, data_range=data_range, method="VAE, posterior mean", mean_se=denoised.mean_se),
        noisy=psnr(truth, seen, data_range=data_range, method="the noisy data"),
        filters=tuple(scored),
        calibration=calibration,
    )
