"""The weights of a VAE by name, as run folders keep them."""

import torch
from torch import Tensor

from vae_pyro.core.files import RunError
from vae_pyro.models.vae import VAE


def weights(vae: VAE) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once although model and guide share some."""
    kept = set(vae.state_dict())
    named = {**dict(vae.named_parameters()), **dict(vae.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if name in kept}


def set_weights(vae: VAE, tensors: dict[str, Tensor], origin: str, *, convert: bool = True) -> None:
    """Copy ``tensors`` into the VAE, in place.

    Args:
        vae: it keeps its device and its types.
        tensors: by name, see `weights`.
        origin: where they are from, for messages.
        convert: take tensors of other types than the VAE's.

    Raises:
        RunError: names or shapes differ from the VAE's, or types, which ``convert`` would allow.
    """
    own = weights(vae)
    if set(own) != set(tensors):
        odd = sorted(set(own) ^ set(tensors))
        raise RunError(f"{origin} does not fit the model in config.json: {', '.join(odd[:4])} in one only")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise RunError(
                f"{origin} does not fit the model in config.json: {name} has shape "
                f"{tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            )
        if not convert and tensor.dtype != tensors[name].dtype:
            raise RunError(
                f"{origin} does not fit the model in config.json: {name} is {tensors[name].dtype}, expected "
                f"{tensor.dtype}"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
