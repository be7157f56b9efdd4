"""Training scripts in plain torch: hand-written by an expert, and as in most tutorials."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.speed.contenders.base import Contender
from benchmarks.speed.task import ADAM_EPS, BETAS, IMAGES, LEARNING_RATE, PIXELS, Task, initial_weights, training_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_WARM_UP_STEPS = 3  # the first compiles, the second may still allocate


class TorchContender(Contender):
    """Base of the contenders on torch: device, seed, precision."""

    def setup(self, task: Task) -> float:
        import torch

        self.task = task
        self.device = torch.device(task.device)
        torch.set_float32_matmul_precision("highest")
        torch.manual_seed(task.seed)
        self.build()
        began = perf_counter()
        self.warm_up(1)
        self.synchronize()
        seconds = perf_counter() - began
        self.warm_up(_WARM_UP_STEPS - 1)
        self.synchronize()
        return seconds

    @abstractmethod
    def build(self) -> None:
        """Build the model, optimizer and data of an epoch."""

    @abstractmethod
    def warm_up(self, steps: int) -> None:
        """Take steps that do not change the weights."""

    def synchronize(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def device_memory(self) -> int | None:
        import torch

        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else None

    def resident(self) -> "Tensor":
        """Training images as bytes on the device."""
        import torch

        return torch.from_numpy(training_images(self.task)).to(self.device)

    def adam(self, parameters: Any, **options: Any) -> "torch.optim.Adam":
        import torch

        return torch.optim.Adam(parameters, **{"lr": LEARNING_RATE, "betas": BETAS, "eps": ADAM_EPS, **options})

    def handwritten(self) -> tuple["nn.ModuleList", Callable[["Tensor"], "Tensor"]]:
        """Hand-written layers and loss: the mean over the batch of the sampled negative ELBO."""
        import torch
        from torch import nn
        from torch.nn import functional

        net = self.task.network
        layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in net.layers)
        set_weights(list(layers), self.task)
        layers.to(self.device)
        activation = getattr(torch, net.activation)
        depth = len(net.hidden)
        encoder, posterior, decoder, output = layers[:depth], layers[depth], layers[depth + 1 : -1], layers[-1]

        def loss(x: "Tensor") -> "Tensor":
            h = x
            for layer in encoder:
                h = activation(layer(h))
            loc, log_scale = posterior(h).chunk(2, dim=-1)
            noise = torch.randn_like(loc)
            z = loc + log_scale.exp() * noise
            h = z
            for layer in decoder:
                h = activation(layer(h))
            reconstruction = -functional.binary_cross_entropy_with_logits(output(h), x, reduction="sum")
            # log q(z | x) - log p(z) at the draw; the constants of the two Gaussians cancel.
            kl = (0.5 * z**2 - 0.5 * noise**2 - log_scale).sum()
            return (kl - reconstruction) / len(x)

        return layers, loss


def set_weights(layers: list[Any], task: Task) -> None:
    """Copy the common initial weights into torch's dense layers."""
    import torch

    start = initial_weights(task.network, task.seed)
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, start, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))


@contextmanager
def without_effect(optimizer: "torch.optim.Optimizer") -> Iterator[None]:
    """Steps inside change no weight, and the state of the optimizer is reset.

    Adam's second moment keeps the large first gradients for long: three additional steps would be visible in the losses
    of the first epochs, by which the contenders are compared.
    """
    kept = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    yield
    for group, rate in zip(optimizer.param_groups, kept, strict=True):
        group["lr"] = rate
    reset(optimizer)


def reset(optimizer: "torch.optim.Optimizer") -> None:
    """Set the moments and the step count of Adam to zero, in place."""
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def binarize(pixels: "Tensor") -> "Tensor":
    """Bernoulli(byte / 255) of every pixel, float32."""
    import torch

    intensity = pixels.float()
    return (torch.rand_like(intensity) * 255 < intensity).float()


def batches(images: "Tensor", size: int) -> Iterator["Tensor"]:
    """Batches of one epoch in random order, without the remainder."""
    import torch

    order = torch.randperm(len(images), device=images.device)
    for start in range(0, len(images) - size + 1, size):
        yield images[order[start : start + size]]


class HandWritten(TorchContender):
    """Hand-written torch by an expert."""

    about = "hand-written torch, fused Adam, bytes in memory"

    def build(self) -> None:
        self.layers, self.loss = self.handwritten()
        self.optimizer = self.adam(self.layers.parameters(), fused=True)
        self.images = self.resident()

    def warm_up(self, steps: int) -> None:
        with without_effect(self.optimizer):
            for pixels in batches(self.images[: steps * self.task.batch], self.task.batch):
                self._step(pixels)

    def _step(self, pixels: "Tensor") -> "Tensor":
        loss = self.loss(binarize(pixels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def epoch(self) -> float:
        total: Any = 0.0
        for pixels in batches(self.images, self.task.batch):
            total = total + self._step(pixels)
        return float(total) / self.task.steps


class UsualScript(TorchContender):
    """The script of most tutorials."""

    about = "torchvision `MNIST`, `ToTensor`, `DataLoader` (no workers), default Adam, `loss.item()`"

    def build(self) -> None:
        from torch.utils.data import DataLoader, Dataset, Subset
        from torchvision.datasets import MNIST
        from torchvision.transforms import ToTensor

        self.layers, self.loss = self.handwritten()
        self.optimizer = self.adam(self.layers.parameters())
        data: Dataset[Any] = MNIST(self.task.data_root, train=True, transform=ToTensor())
        if self.task.num_images < IMAGES:
            data = Subset(data, range(self.task.num_images))
        self.loader = DataLoader(data, batch_size=self.task.batch, shuffle=True, drop_last=True)

    def warm_up(self, steps: int) -> None:
        with without_effect(self.optimizer):
            for _, (x, _) in zip(range(steps), self.loader, strict=False):
                self._step(x)

    def _step(self, x: "Tensor") -> float:
        import torch

        x = torch.bernoulli(x.to(self.device).view(-1, PIXELS))
        self.optimizer.zero_grad()
        loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def epoch(self) -> float:
        return sum(self._step(x) for x, _ in self.loader) / self.task.steps
