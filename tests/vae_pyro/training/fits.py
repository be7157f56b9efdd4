"""Short fits."""

from typing import Any

from vae_pyro import VAE, FitConfig
from vae_pyro.runs.weights import weights

SMALL = {"name": "mlp", "hidden": [24]}


def short(epochs: int = 2, **options: Any) -> FitConfig:
    return FitConfig(epochs=epochs, batch_size=64, compile=False, device="cpu", **options)


def bits(vae: VAE) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in weights(vae).items()}
