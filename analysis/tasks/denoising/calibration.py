"""Where the truth falls in the posterior of the clean signal, on data whose truth is known."""

from typing import Any

import numpy as np
import torch

from analysis.tasks.denoising.calibration_result import DenoisingCalibration
from vae_pyro.applications.denoising import Block, denoise
from vae_pyro.applications.denoising_result import Denoised
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]

# Errors are estimated from the data, which takes many of them where the elements of a datum depend on each other; and
# with 15 data for each bin, one that is empty of all of them is no chance (less than once in 10^6 for each bin).
_LEAST_DATA, _LEAST_DATA_A_BIN = 150, 15


def calibrate_denoising(
    vae: VAE,
    noisy: Split | torch.Tensor | Array,
    clean: torch.Tensor | Array,
    *,
    level: float = 0.9,
    num_draws: int = 500,
    num_bins: int = 10,
    seed: int = 0,
) -> DenoisingCalibration:
    """Where the truth falls in the posterior of the clean signal.

    Args:
        vae: see `vae_pyro.applications.denoising.denoise`.
        noisy: ``(datum, *x_shape)``.
        clean: the truth, same shape, in units of the clean signal.
        level: of the central interval.
        num_draws: of the posterior, for each datum.
        num_bins: of the PIT values, at least 2.
        seed: of the draws and of broken ties.

    Raises:
        ValueError: clean data of another shape or that are not finite, fewer than 2 bins, or fewer data than 150 or
            ``15 * num_bins``, of which errors and verdicts could not be trusted.
    """
    return denoise_and_calibrate(
        vae, as_split(noisy), clean, level=level, num_draws=num_draws, num_bins=num_bins, seed=seed
    )[1]


def denoise_and_calibrate(
    vae: VAE, noisy: Split, clean: Any, *, level: float, num_draws: int, num_bins: int = 10, seed: int
) -> tuple[Denoised, DenoisingCalibration]:
    """What `vae_pyro.applications.denoising.denoise` finds, and where the truth falls in it, of the same draws.

    Args and errors are those of `calibrate_denoising`.
    """
    split = noisy.fixed(derive_seed(seed, 0))
    truth = torch.as_tensor(np.asarray(clean), dtype=vae.dtype, device=vae.device)
    if truth.shape != (len(split), *split.x_shape):
        raise ValueError(f"clean data of shape {(len(split), *split.x_shape)} required, got {tuple(truth.shape)}")
    if not truth.isfinite().all():
        raise ValueError(f"clean data are finite numbers, and {int((~truth.isfinite()).sum())} of them are not")
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    least = max(_LEAST_DATA, _LEAST_DATA_A_BIN * num_bins)
    if len(split) < least:
        raise ValueError(
            f"calibration in {num_bins} bins requires at least {least} data, got {len(split)}: with fewer a posterior "
            "that is right is rejected too often"
        )
    low = (1 - level) / 2
    inside, bins = np.empty(len(split)), np.empty((len(split), num_bins))

    def place(block: Block) -> None:
        at = truth[block.rows]
        below, ties = (block.draws < at).sum(0).double(), (block.draws == at).sum(0).double()
        with isolated(derive_seed(seed, 2, block.rows.start)):
            uniform = torch.rand(at.shape, dtype=torch.float64, device=at.device)
        pit = ((below + uniform * (ties + 1)) / (num_draws + 1)).flatten(1).cpu().numpy()
        inside[block.rows] = ((pit > low) & (pit < 1 - low)).mean(1)
        number = np.minimum((pit * num_bins).astype(np.int64), num_bins - 1)
        bins[block.rows] = np.stack([(number == k).mean(1) for k in range(num_bins)], 1)

    found = denoise(vae, split, num_draws=num_draws, level=level, seed=seed, each=place)
    known = truth.cpu().numpy()

    def average(values: Array) -> Array:
        return values.reshape(len(values), -1).mean(1, dtype=np.float64)

    return found, DenoisingCalibration(
        covered=average((known >= found.lower) & (known <= found.upper)),
        inside=inside,
        bins=bins,
        square=average((known - found.mean) ** 2),
        variance=average(found.sd**2),
        level=level,
    )
