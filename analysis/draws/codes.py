"""Codes: where a guide puts data, as rows that other rooms look at."""

from typing import Any

import numpy as np
import torch

from analysis.draws.weights import Pair
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.log_densities import draw_latents
from vae_pyro.evaluation.evaluation import blocks, numbers_held, place_of
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]


def posterior_means(
    pair: Pair,
    x: Split | torch.Tensor | Array,
    *,
    num_draws: int = 100,
    seed: int = 0,
    mask: torch.Tensor | None = None,
    y: Any = None,
) -> Array:
    """E_q[z | x] of each datum: the codes that `geometry` and `disentanglement` look at.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`; the
            sites of several latents stand side by side.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: of the guide for each datum, where its mean is not known in closed form.
        seed: of the draws.
        mask: boolean, shape of ``x``, true where observed.
        y: classes that the programs are given, ``(datum,)``.

    Returns:
        Shape ``(datum, latent)``, float64.

    Raises:
        ValueError: wrong shapes, or data outside the support of the likelihood.
    """
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    if isinstance(pair, VAE):
        pair.check_data(split)
    device, dtype = place_of(pair, split.head)
    size, _ = blocks(len(split), num_draws, numbers_held(pair, split))
    resident, parts = split.to(device), []
    with torch.no_grad():
        for number, start in enumerate(range(0, len(split), size)):
            batch, given = resident.batch(slice(start, start + size), dtype)
            own = derive_seed(seed, 1, number)
            if isinstance(pair, VAE):
                mean, _ = pair.posterior_moments(batch, **given, num_draws=num_draws, seed=own)
            else:
                with isolated(own):
                    latents, _ = draw_latents(pair[1], batch, num_particles=num_draws, **given)
                mean = torch.cat([value.double().mean(0).reshape(len(batch), -1) for value in latents.values()], 1)
            parts.append(mean.double().cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def drawn_means(pair: Pair, split: Split, *, num_draws: int, seed: int) -> tuple[list[str], Array]:
    """Mean of the guide's draws of every continuous latent, for each datum, with its name.

    Unlike `posterior_means` it takes draws of any guide alike, of every layer, and leaves classes out.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
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
