"""Tensors of draws as arrays."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

type Array = np.ndarray[Any, Any]


def as_array(tensor: Tensor) -> Array:
    """A tensor as a float64 array."""
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())


def side_by_side(latents: dict[str, Tensor], batch_dims: int) -> Array:
    """Sites next to each other, in their order: ``(*batch, latent)``."""
    return np.concatenate([as_array(z).reshape(*z.shape[:batch_dims], -1) for z in latents.values()], axis=-1)
