"""The networks of a VAE, evaluated so that encoder and decoder compute the same probabilities to the last bit.

A matrix product rounds differently with another number of rows or threads, or another library. So the networks run in
float64 on the CPU, with one thread and always for a block of the same number of rows, filled up with zeros; their
outputs are rounded to integers before use. A digest of these integers at fixed points detects a machine that computes
others.
"""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution

from vae_pyro.applications.compression.elements import Alphabet
from vae_pyro.applications.compression.grid import Grid
from vae_pyro.core.isolation import isolated
from vae_pyro.models.structures import STRUCTURES
from vae_pyro.models.vae import VAE
from vae_pyro.parallel.process import exact_threads
from vae_pyro.runs.weights import weights

type Array = np.ndarray[Any, Any]

# Multiples of a stride that shares no factor with a power of two are spread evenly over a grid.
_STRIDE = 40503
_CODABLE = "'bernoulli', 'categorical', 'discretized_logistic', 'poisson' or 'negative_binomial'"


class Networks:
    """q(z | x) on a grid and p(x | z) on an alphabet, for up to ``block`` data at once.

    Args:
        vae: with a mean-field posterior, a standard normal prior and a discrete likelihood, see `require_codable`.
        block: rows of every evaluation of a network.

    Raises:
        ValueError: see `require_codable`.
    """

    def __init__(self, vae: VAE, block: int) -> None:
        require_codable(vae)
        self.block, self.x_shape, self.latent_dim = block, vae.config.x_shape, vae.config.latent_dim
        self._vae = copy.deepcopy(vae).to("cpu", torch.float64).eval()

    def posterior(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of q(z | x), each ``(datum * latent,)``, for ``(datum, *x_shape)``."""
        normal = self._vae.guide.encode(self._filled(x, self.x_shape))
        assert isinstance(normal, dist.Independent)
        loc, scale = normal.base_dist.loc, normal.base_dist.scale
        return loc[: len(x)].reshape(-1).numpy(), scale[: len(x)].reshape(-1).numpy()

    def elements(self, z: Array) -> TorchDistribution:
        """Elements of p(x | z), batch ``(datum, *x_shape)``, for ``(datum, latent)``."""
        model = self._vae.model
        # The likelihood is elementwise, so that rows need not be filled up.
        elements = model.likelihood(model.decoder(self._filled(z, (self.latent_dim,)))[: len(z)])
        assert isinstance(elements, torch.distributions.Distribution)
        return elements

    def element_weights(self, z: Array, alphabet: Alphabet) -> Array:
        """Weights of the elements of p(x | z), ``(datum * element, symbol)``, for ``(datum, latent)``."""
        return alphabet.weights(self.elements(z))

    def digest(self, grid: Grid, alphabet: Alphabet) -> str:
        """SHA-256 of the integer weights at points that are the same on every machine."""
        found = hashlib.sha256()
        index = np.arange(self.block * self.latent_dim) * _STRIDE % grid.size
        found.update(_bytes(self.element_weights(grid.centres[index].reshape(self.block, -1), alphabet)))
        numbers = np.arange(self.block * int(np.prod(self.x_shape))) * _STRIDE // 7 % alphabet.values + alphabet.low
        loc, scale = self.posterior(numbers.reshape(self.block, *self.x_shape))
        cell = np.clip(np.searchsorted(grid.edges[:: grid.cells], loc) - 1, 0, grid.cells - 1)
        found.update(_bytes(grid.cell_weights(loc, scale)))
        found.update(_bytes(grid.bucket_weights(loc, scale, cell)))
        return found.hexdigest()

    def _filled(self, rows: Array, shape: tuple[int, ...]) -> torch.Tensor:
        filled = torch.zeros(self.block, *shape, dtype=torch.float64)
        filled[: len(rows)] = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float64))
        return filled


def _bytes(weights: Array) -> bytes:
    return weights.astype("<i8").tobytes()


def require_codable(vae: VAE) -> None:
    """Refuse a VAE that bits-back coding on a grid cannot use.

    Raises:
        ValueError: the message names the choice that prevents it, and one that does not.
    """
    config = vae.config
    if not STRUCTURES[config.structure.name].single_latent:
        raise ValueError(
            f"compression requires one layer of latents and no labels, structure 'single'; this VAE is "
            f"{config.structure.name!r}"
        )
    if not (vae.guide.posterior.gaussian and vae.guide.posterior.factorized):
        raise ValueError(
            f"compression requires independent Gaussian latents given x, posterior 'mean_field'; this VAE has "
            f"{config.posterior.name!r}: fit one with posterior='mean_field'"
        )
    if not vae.model.prior.standard_normal:
        raise ValueError(
            f"compression requires a standard normal prior, which defines the grid of the latents; this VAE has "
            f"{config.prior.name!r}: fit one with prior='normal'"
        )
    if not vae.model.likelihood.discrete:
        raise ValueError(
            f"lossless compression requires probabilities of discrete data, and likelihood {config.likelihood.name!r} "
            f"is a density; fit one with {_CODABLE}"
        )
    if not vae.model.likelihood.elementwise:
        raise ValueError(
            f"likelihood {config.likelihood.name!r} has elements that are not independent given z, or not all of one "
            f"kind, and cannot be coded one by one; fit one with {_CODABLE}"
        )


@contextmanager
def exact() -> Iterator[None]:
    """One thread, no gradients, and no change of global state."""
    with exact_threads(1), isolated(), torch.no_grad():
        yield


def model_digest(vae: VAE) -> str:
    """SHA-256 of the weights of a VAE, which encoder and decoder must share."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights(vae).items()):
        values = tensor.detach().cpu().contiguous()
        found.update(f"|{name}|{values.dtype}|{tuple(values.shape)}|".encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
