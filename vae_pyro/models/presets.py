"""Reference VAEs: configurations as their sources give them, by name."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A model and how it is fitted, for any image data.

    Attributes:
        source: where the configuration comes from, and what differs from it.
        model: fields of `vae_pyro.VAEConfig`, without ``x_shape``.
        fit: fields of `vae_pyro.FitConfig`.
        binarize: how grey images are observed, see `vae_pyro.DataConfig`.
    """

    source: str
    model: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    binarize: str = "none"


def _mlp(*hidden: int, activation: str = "relu") -> dict[str, Any]:
    return {"name": "mlp", "hidden": list(hidden), "activation": activation}


_TUTORIAL = "a configuration of tutorials, without a paper of its own"

_IWAE_FIT: dict[str, Any] = {
    "optimizer": "adam:lr=1e-3,eps=1e-4",
    "schedule": {
        "name": "step",
        "milestones": [1, 4, 13, 40, 121, 364, 1093],
        "gamma": 10 ** (-1 / 7),
    },
    "batch_size": 20,
    "epochs": 3280,
}

PRESETS: dict[str, Preset] = {
    "mlp-400-20": Preset(
        f"784-400-20 with ReLU, {_TUTORIAL}; the family of Kingma & Welling 2014 (arXiv:1312.6114). Tutorials score "
        "grey levels with a Bernoulli; here they are binarised anew at every step",
        {"encoder": _mlp(400), "latent_dim": 20, "likelihood": "bernoulli"},
        {"optimizer": "adam:lr=1e-3", "batch_size": 64, "epochs": 10},
        "dynamic",
    ),
    "mlp-512-2": Preset(
        f"784-512-2 with ReLU, {_TUTORIAL} that show the latent plane; epochs are not given there, 50 are used here",
        {"encoder": _mlp(512), "latent_dim": 2, "likelihood": "bernoulli"},
        {"optimizer": "rmsprop:lr=1e-3,alpha=0.9,eps=1e-7", "batch_size": 32, "epochs": 50},
        "dynamic",
    ),
    "mlp-256-512-32": Preset(
        f"encoder 256-512, decoder 256-512, 32 latents, {_TUTORIAL}",
        {"encoder": _mlp(256, 512), "decoder": _mlp(256, 512), "latent_dim": 32, "likelihood": "bernoulli"},
        {"optimizer": "rmsprop:lr=1e-3,alpha=0.9,eps=1e-7", "batch_size": 256, "epochs": 100},
        "dynamic",
    ),
    "leaky-128-32": Preset(
        f"one hidden layer of 128 with LeakyReLU, 32 latents, Gaussian, {_TUTORIAL}. Where they take a squared error, "
        "the scale is learned here",
        {"encoder": _mlp(128, activation="leaky_relu"), "latent_dim": 32, "likelihood": "gaussian:scale=learned"},
        {"optimizer": "adam:lr=1e-3", "batch_size": 128, "epochs": 100},
    ),
    "dense-128-28": Preset(
        f"one hidden layer of 128 with ReLU, 28 latents, Gaussian, {_TUTORIAL}. Where they take a squared error, the "
        "scale is learned here",
        {"encoder": _mlp(128), "latent_dim": 28, "likelihood": "gaussian:scale=learned"},
        {"optimizer": "adam:lr=1e-3", "batch_size": 64, "epochs": 10},
    ),
    "conv-16": Preset(
        f"convolutions 32-64 with stride 2, a dense layer of 256, 16 latents, {_TUTORIAL}",
        {
            "encoder": {"name": "conv", "channels": [32, 64], "hidden": 256},
            "latent_dim": 16,
            "likelihood": "bernoulli",
        },
        {"optimizer": "adam:lr=1e-3", "batch_size": 128, "epochs": 20},
        "dynamic",
    ),
    "iwae-200-200-50": Preset(
        "Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519), sec. 5, one stochastic layer: 784-200-200-50 tanh, "
        "output bias from the data, Glorot's initial weights, batch 20, Adam with eps 1e-4, 3,280 epochs "
        "in 8 stages of 3^i epochs with rates 1e-3 x 10^(-i/7)",
        {
            "encoder": _mlp(200, 200, activation="tanh"),
            "latent_dim": 50,
            "likelihood": "bernoulli",
            "init": "glorot",
        },
        _IWAE_FIT,
        "dynamic",
    ),
    "iwae-2-layer": Preset(
        "Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519), sec. 5, two stochastic layers: 784-200-200-100, then "
        "100-100-100-50, tanh in both directions; optimizer and schedule as for iwae-200-200-50",
        {
            "encoder": _mlp(200, 200, activation="tanh"),
            "latent_dim": 100,
            "likelihood": "bernoulli",
            "init": "glorot",
            "structure": {"name": "bottom_up", "latent_dims": [50], "hidden": [100, 100], "activation": "tanh"},
        },
        _IWAE_FIT,
        "dynamic",
    ),
    "gated-300-300-40": Preset(
        "Tomczak & Welling 2018 (arXiv:1705.07120), sec. 4: two gated layers of 300, 40 latents, Adam 5e-4, batch 100, "
        "warm-up of 100 epochs, early stopping after 50 epochs without improvement, at most 2,000",
        {
            "encoder": _mlp(300, 300, activation="gated"),
            "latent_dim": 40,
            "likelihood": "bernoulli",
            "init": "he",
        },
        {"optimizer": "adam:lr=5e-4", "batch_size": 100, "epochs": 2000, "kl_warmup": 100, "patience": 50},
        "dynamic",
    ),
}


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ValueError: no preset has that name; the message lists those that there are.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
