"""Another family of guides, or another encoder, for the model of a fitted VAE."""

from typing import Any

import torch

from vae_pyro.densities.pair import Pair
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.runs.weights import weights


def with_guide(pair: Pair, *, posterior: Any = None, encoder: Any = None, seed: int = 0) -> Pair:
    """A VAE with the model of another one and a guide of another family; the pair itself where nothing changes.

    The guide starts with those weights of the former guide whose names and shapes it has.

    Args:
        pair: a VAE.
        posterior: family of q(z | x); ``None`` keeps it.
        encoder: body of the guide; ``None`` keeps it. The decoder stays what it is.
        seed: of new weights.

    Raises:
        ValueError: the pair is no VAE, the choices are unknown or do not fit, or the model would be another one.
    """
    if posterior is None and encoder is None:
        return pair
    former = pair.decodable
    if former is None:
        raise ValueError(
            "posterior= and encoder= choose the guide of a VAE, and this pair is of other programs; write the guide "
            "that it is to have, and refit the pair (model, guide)"
        )
    changes = {name: choice for name, choice in (("posterior", posterior), ("encoder", encoder)) if choice is not None}
    made = VAE(VAEConfig(**{**former.config.model_dump(), **changes}), seed=seed).to(former.device, former.dtype)
    old, new = weights(former), weights(made)
    with torch.no_grad():
        for name, tensor in new.items():
            if name in old and old[name].shape == tensor.shape:
                tensor.copy_(old[name])
    ours, theirs = made.model.state_dict(), former.model.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise ValueError(
            f"the model depends on {' and '.join(changes)}, and would be another one; fit a VAE of this configuration"
        )
    return made.train(former.training)
