"""Moments of q(z | x) for all data of a split, as arrays."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE

_BLOCK = 4096


def posterior_moments(vae: "VAE", split: "Split", seed: int) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Mean and standard deviation of q(z | x), each ``(datum, latent)``; see `VAE.posterior_moments`."""
    import numpy as np

    parts = []
    for start in range(0, len(split), _BLOCK):
        x, given = split.batch(slice(start, start + _BLOCK))
        loc, scale = vae.posterior_moments(x, **given, seed=seed)
        parts.append((loc.cpu().numpy(), scale.cpu().numpy()))
    return np.concatenate([loc for loc, _ in parts]), np.concatenate([scale for _, scale in parts])
