"""The task of every contender of `benchmarks.speed`: data, network, initial weights, optimizer.

It imports neither torch nor jax, since each contender has a process of its own and loads its own library there.
"""

import gzip
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np

IMAGES = 60_000
PIXELS = 784
LEARNING_RATE = 1e-3
BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8

type Layer = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Net:
    """A VAE of dense layers with a diagonal Gaussian guide and Bernoulli pixels.

    Attributes:
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        latent: dimension of z.
        activation: after every hidden layer.
    """

    hidden: tuple[int, ...]
    latent: int
    activation: Literal["relu", "tanh"]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of every dense layer: encoder, posterior (location and log scale), decoder, output."""
        encoder = [PIXELS, *self.hidden]
        decoder = [self.latent, *reversed(self.hidden), PIXELS]
        pairs = [*pairwise(encoder), (self.hidden[-1], 2 * self.latent)]
        return [*pairs, *pairwise(decoder)]


NETS = {"mlp-400-20": Net((400,), 20, "relu"), "iwae-200-200-50": Net((200, 200), 50, "tanh")}


@dataclass(frozen=True)
class Task:
    """The work of one contender.

    Attributes:
        net: a name in `NETS`.
        batch: images in a step; a smaller last batch is dropped.
        device: ``cpu`` or ``cuda``.
        seed: of the initial weights, the order and the noise.
        data_root: folder that holds ``MNIST/raw``.
        max_steps: number of batches of images that are used; ``None`` uses all.
    """

    net: str
    batch: int
    device: str
    seed: int
    data_root: str
    max_steps: int | None = None

    @property
    def network(self) -> Net:
        """The network by its name."""
        return NETS[self.net]

    @property
    def num_images(self) -> int:
        """Training images that are used."""
        return IMAGES if self.max_steps is None else min(IMAGES, self.max_steps * self.batch)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.num_images // self.batch


def training_images(task: Task) -> np.ndarray[Any, Any]:
    """MNIST's training images as bytes, ``(image, 784)``.

    Raises:
        FileNotFoundError: they are not under ``data_root``.
    """
    folder = Path(task.data_root) / "MNIST" / "raw"
    for file in (folder / "train-images-idx3-ubyte", folder / "train-images-idx3-ubyte.gz"):
        if file.exists():
            content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            images = np.frombuffer(content, dtype=np.uint8, offset=16).reshape(IMAGES, PIXELS)
            return images[: task.num_images].copy()
    raise FileNotFoundError(
        f"no train-images-idx3-ubyte in {str(folder)!r}; pass --data-root, the folder in which torchvision keeps MNIST"
    )


def initial_weights(net: Net, seed: int) -> list[Layer]:
    """Weights ``(out, in)`` and biases of every layer, uniform within 1 / sqrt(in), as torch starts a dense layer.

    All contenders start from these numbers, so that their losses after an epoch can be compared closely.
    """
    generator = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in net.layers:
        bound = 1 / sqrt(inputs)
        weight = generator.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
        layers.append((weight, generator.uniform(-bound, bound, outputs).astype(np.float32)))
    return layers


def eps_for_sum(batch: int) -> float:
    """Adam's eps for a loss that is a sum over the batch.

    Adam with eps on the mean and Adam with ``batch * eps`` on the sum take the same steps. Pyro's and NumPyro's losses
    are sums, and a wrapper that scales them would cost additional time.
    """
    return batch * ADAM_EPS
