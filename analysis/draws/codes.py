"""Codes: where a guide puts data, as rows of an array."""

from typing import Any

import numpy as np
import torch

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import Block, PairData, bind, block_sizes, pieces

type Array = np.ndarray[Any, Any]


def posterior_means(
    pair: PairLike,
    x: Split | torch.Tensor | Array,
    *,
    num_draws: int = 100,
    seed: int = 0,
    mask: torch.Tensor | None = None,
    y: Any = None,
) -> Array:
    """E_q[z | x] of each datum: the codes that `geometry` and `disentanglement` look at.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`; the
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
    data = bind(pair, x, seed=seed, mask=mask, y=y)
    size, _ = block_sizes(len(data), num_draws, data.width)
    parts = []
    for number, rows in enumerate(pieces(len(data), size)):
        batch, given = data.batch(rows)
        mean = data.pair.posterior_means(batch, num_draws=num_draws, seed=derive_seed(seed, 1, number), **given)
        parts.append(mean.cpu().numpy())
    return np.concatenate(parts)


class MeansReducer:
    """Collects `posterior_means` from the blocks of a walk; the guide is run again where its means are no draws' means.

    Args:
        data: the pair and its data.
        num_draws: see `posterior_means`.
        seed: of draws of its own.
    """

    def __init__(self, data: PairData, *, num_draws: int = 100, seed: int = 0) -> None:
        self._pair, self._num_draws, self._seed = data.pair, num_draws, seed
        self._parts: list[Array] = []

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add the data of a block."""
        means = self._pair.means_of(block.latents, block.distributions)
        if means is None:
            seed = derive_seed(self._seed, 1, len(self._parts))
            means = self._pair.posterior_means(block.x, num_draws=self._num_draws, seed=seed, **block.given)
        self._parts.append(means.cpu().numpy())

    def result(self) -> Array:
        """Posterior means, ``(datum, latent)``, float64."""
        return np.concatenate(self._parts)


def drawn_means(pair: PairLike, split: Split, *, num_draws: int, seed: int) -> tuple[list[str], Array]:
    """Mean of the guide's draws of every continuous latent, for each datum, with its name.

    Unlike `posterior_means` it takes draws of any guide alike, of every layer, and leaves classes out.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        split: data with fixed observations.
        num_draws: draws for each datum.
        seed: of the draws.

    Returns:
        Names such as ``z[0]``, and means, float64, ``(datum, latent)``.

    Raises:
        ValueError: the guide has no continuous latent.
    """
    names: list[str] = []
    parts = []
    for block in bind(pair, split, seed=seed, check=False).walk(num_draws, seed=seed):
        means = {
            name: draws.double().mean(0).flatten(1)
            for name, draws in sorted(block.latents.items())
            if draws.dtype.is_floating_point
        }
        if not means:
            raise ValueError(f"the guide has no continuous latent, only {', '.join(block.latents) or 'none'}")
        names = [f"{name}[{i}]" for name, mean in means.items() for i in range(mean.shape[1])]
        parts.append(torch.cat(list(means.values()), 1).cpu().numpy())
    return names, np.concatenate(parts)
