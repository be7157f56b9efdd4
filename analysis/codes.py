"""Where a guide puts data: posterior means of all latents of any pair, as rows that other rooms compare."""

from typing import Any

import numpy as np
import torch

from analysis.weights import Pair
from vae_pyro.data import Split
from vae_pyro.densities import draw_latents
from vae_pyro.evaluation import blocks, numbers_held, place_of
from vae_pyro.isolation import isolated
from vae_pyro.vae import VAE

type Array = np.ndarray[Any, Any]


@torch.no_grad()
def posterior_means(pair: Pair, split: Split, *, num_draws: int, seed: int) -> tuple[list[str], Array]:
    """Mean of the guide's draws of every continuous latent, for each datum.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities`.
        split: data with fixed observations.
        num_draws: draws for each datum.
        seed: of the draws.

    Returns:
        Names such as ``z[0]``, and means, float64, ``(datum, latent)``.

    Raises:
        ValueError: the guide has no continuous latent.
    """
    guide = pair.guide if isinstance(pair, VAE) else pair[1]
    device, dtype = place_of(pair, split.head)
    resident = split.to(device)
    size, _ = blocks(len(split), num_draws, numbers_held(pair, split))
    names: list[str] = []
    parts = []
    with isolated(seed):
        for start in range(0, len(split), size):
            x, given = resident.batch(slice(start, start + size), dtype)
            latents, _ = draw_latents(guide, x, num_particles=num_draws, **given)
            means = {
                name: draws.double().mean(0).flatten(1)
                for name, draws in sorted(latents.items())
                if draws.dtype.is_floating_point
            }
            if not means:
                raise ValueError(f"the guide has no continuous latent, only {', '.join(latents) or 'none'}")
            names = [f"{name}[{i}]" for name, mean in means.items() for i in range(mean.shape[1])]
            parts.append(torch.cat(list(means.values()), 1).cpu().numpy())
    return names, np.concatenate(parts)
