"""Moments of q(z | x) for all data of a split, as arrays."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE

_BLOCK = 4096
_NAMED = 8


def posterior_moments(vae: "VAE", split: "Split", seed: int) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Mean and standard deviation of q(z | x), each ``(datum, latent)``; see `VAE.posterior_moments`.

    Raises:
        ValueError: a datum for which they are not finite; the message names the rows of the source.
    """
    import numpy as np

    parts = []
    for start in range(0, len(split), _BLOCK):
        x, given = split.batch(slice(start, start + _BLOCK))
        parts.append([moment.cpu().numpy() for moment in vae.posterior_moments(x, **given, seed=seed)])
    loc, scale = (np.concatenate(blocks) for blocks in zip(*parts, strict=True))
    bad = np.flatnonzero(~(np.isfinite(loc) & np.isfinite(scale)).all(1))
    if len(bad):
        rows = split.ids.cpu().numpy()[bad]
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        raise ValueError(
            f"q(z | x) has a mean or standard deviation that is not finite for {len(rows)} of {len(loc)} data, rows "
            f"{', '.join(map(str, rows[:_NAMED]))}{more}: they lie far outside the training data; bring them to its "
            "units, or leave them out"
        )
    return loc, scale
