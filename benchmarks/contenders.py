"""The contenders of `benchmarks.speed`: one class for each way to train the same VAE on the same data.

A contender lives in a process of its own (`benchmarks.worker`). `setup` builds it and takes the first step, which is
where compilers run; `epoch` is what is timed. A library is imported where its contender is set up, so that NumPyro's
process holds no torch and torch's no jax.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchmarks.work import (
    ADAM_EPS,
    BETAS,
    IMAGES,
    LEARNING_RATE,
    PIXELS,
    Task,
    eps_for_sum,
    initial_weights,
    training_images,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_WARM_UP_STEPS = 3  # the first compiles, the second may still allocate


class NotInstalledError(RuntimeError):
    """What the contender needs is not there; the message says what."""


class Contender(ABC):
    """One way to train.

    Attributes:
        about: what it is, for the table.
        members: VAEs that an epoch trains at once.
        compiles: whether the first step's time is that of a compiler.
        loads_torch: whether its process uses torch.
    """

    about: str
    members: int = 1
    compiles: ClassVar[bool] = False
    loads_torch: ClassVar[bool] = True

    @abstractmethod
    def setup(self, task: Task) -> float:
        """Build it, compile it, warm it up; the weights are the initial ones afterwards.

        Returns:
            Seconds of the first step, with all tracing and compiling.

        Raises:
            NotInstalledError: a library is absent.
        """

    @abstractmethod
    def epoch(self) -> float:
        """Train on every image once, in a new random order.

        Returns:
            The running mean of the loss in nats per datum, averaged over members.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done what it was asked for."""

    def device_memory(self) -> int | None:
        """Peak bytes on an accelerator; ``None`` on a CPU."""
        return None


# --- torch ------------------------------------------------------------------------------------------------------------


class _Torch(Contender):
    """What the contenders on torch share: device, seed, precision."""

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
        """Make everything that an epoch needs."""

    @abstractmethod
    def warm_up(self, steps: int) -> None:
        """Take steps that leave the weights as they were."""

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
        """Layers and loss as one writes them by hand: the mean over the batch of the sampled negative ELBO."""
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
def without_trace(optimizer: "torch.optim.Optimizer") -> Iterator[None]:
    """Steps inside change no weight, and the optimizer forgets them.

    Adam's second moment remembers the large first gradients for long: three forgotten steps more would show in the
    losses of the first epochs, by which the contenders are compared.
    """
    kept = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    yield
    for group, rate in zip(optimizer.param_groups, kept, strict=True):
        group["lr"] = rate
    forget(optimizer)


def forget(optimizer: "torch.optim.Optimizer") -> None:
    """Put the moments and the step count of Adam back to zero, in place."""
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


class HandWritten(_Torch):
    """Hand-written torch as an expert writes it."""

    about = "hand-written torch, fused Adam, bytes in memory"

    def build(self) -> None:
        self.layers, self.loss = self.handwritten()
        self.optimizer = self.adam(self.layers.parameters(), fused=True)
        self.images = self.resident()

    def warm_up(self, steps: int) -> None:
        with without_trace(self.optimizer):
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


class UsualScript(_Torch):
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
        with without_trace(self.optimizer):
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


# --- vae_pyro's VAE ---------------------------------------------------------------------------------------------------


class _VAE(_Torch):
    """What the contenders on `vae_pyro.VAE` share: the model and the guide."""

    def vae(self) -> Any:
        from vae_pyro import VAE, VAEConfig

        net = self.task.network
        config = VAEConfig(
            x_shape=(PIXELS,),
            latent_dim=net.latent,
            likelihood="bernoulli",
            encoder={"name": "mlp", "hidden": list(net.hidden), "activation": net.activation},
        )
        vae = VAE(config, seed=self.task.seed)
        set_weights(layers_of(vae), self.task)
        return vae.to(self.device)


def layers_of(vae: Any) -> list[Any]:
    """A VAE's dense layers in the order of `benchmarks.work.Net.layers`."""
    from torch import nn

    return [layer for half in (vae.guide, vae.model) for layer in half.modules() if isinstance(layer, nn.Linear)]


class StockSVI(_VAE):
    """Pyro as its users write it."""

    about = "`pyro.infer.SVI`, `Trace_ELBO`, `pyro.optim.Adam`, validation on, bytes in memory"

    def build(self) -> None:
        import pyro
        from pyro.infer import SVI, Trace_ELBO

        pyro.clear_param_store()
        pyro.enable_validation(True)
        self.pair = self.vae()
        optimizer = pyro.optim.Adam({"lr": LEARNING_RATE, "betas": BETAS, "eps": eps_for_sum(self.task.batch)})
        self.svi = SVI(self.pair.model, self.pair.guide, optimizer, Trace_ELBO())
        self.images = self.resident()

    def warm_up(self, steps: int) -> None:
        for pixels in batches(self.images[: steps * self.task.batch], self.task.batch):
            self.svi.step(binarize(pixels))
        set_weights(layers_of(self.pair), self.task)
        for optimizer in self.svi.optim.optim_objs.values():
            forget(optimizer)

    def epoch(self) -> float:
        total = sum(self.svi.step(binarize(pixels)) for pixels in batches(self.images, self.task.batch))
        return float(total) / (self.task.steps * self.task.batch)


class Compiled(_VAE):
    """`vae_pyro.svi.compiled_svi.CompiledSVI`: a single run, or an ensemble."""

    compiles = True
    about = "`CompiledSVI.run_epoch`, `Trace_ELBO`, torch's Adam, bytes in memory"

    def __init__(self, members: int | None = None) -> None:
        self.num_ensemble = members
        if members is not None:
            self.about = f"`CompiledSVI(..., num_ensemble={members})`; times are per member"
        self.members = members or 1

    def build(self) -> None:
        self.pair = self.vae()
        self.optimizer = self.adam(self.pair.parameters(), eps=eps_for_sum(self.task.batch))
        self.svi, self.run = compiled_svi(self, self.num_ensemble)
        self.epochs = 0

    def warm_up(self, steps: int) -> None:
        with without_trace(self.optimizer):
            self.run(steps * self.task.batch, self.task.seed)
        forget_members(self.svi)

    def epoch(self) -> float:
        self.epochs += 1
        return float(np.mean(self.run(None, self.task.seed + self.epochs)))


def compiled_svi(contender: Compiled, members: int | None) -> tuple[Any, Callable[[int | None, int], Any]]:
    """The one place (with `forget_members`) that knows `CompiledSVI`'s interface.

    Returns:
        The SVI, and ``run(num_images, seed)``: train once on the first ``num_images`` (``None``: all), and give the
        mean loss in nats per datum, or a list of them.

    Raises:
        NotInstalledError: this checkout has no `vae_pyro.svi.compiled_svi`.
    """
    from pyro.infer import Trace_ELBO

    from vae_pyro.data.split import Split

    try:
        from vae_pyro.svi.compiled_svi import CompiledSVI
    except ImportError as error:
        raise NotInstalledError(f"this vae_pyro has no CompiledSVI ({error})") from error

    pair, task = contender.pair, contender.task
    split = Split(contender.resident(), top=255.0, draw="binarize")
    options: dict[str, Any] = {}
    if members is not None:

        def initialize(seed: int) -> None:
            set_weights(layers_of(pair), replace(task, seed=seed))

        options = {
            "num_ensemble": members,
            "seeds": [task.seed + number for number in range(members)],
            "initialize": initialize,
        }
    whole = hasattr(split, "raw") and hasattr(split, "observe")
    options["prepare"] = split.observe if whole else lambda pixels: ((binarize(pixels),), {})
    svi = CompiledSVI(pair.model, pair.guide, contender.optimizer, Trace_ELBO(), **options)

    def run(num_images: int | None, seed: int) -> Any:
        some = split if num_images is None else split.take(slice(num_images))
        return svi.run_epoch(some if whole else some.values, batch_size=task.batch, seed=seed, drop_last=True)

    return svi, run


def forget_members(svi: Any) -> None:
    """Put the moments and counts of an ensemble's optimizer back to zero; the torch optimizer does not hold them."""
    for slot in [] if svi.ensemble is None else svi.ensemble.slots:
        slot.count.zero_()
        for tensor in slot.state().values():
            tensor.zero_()


# --- NumPyro ----------------------------------------------------------------------------------------------------------


class NumPyro(Contender):
    """NumPyro at its fastest."""

    about = "NumPyro `SVI`, `Trace_ELBO`, the whole epoch in one jitted `fori_loop`, bytes on the device"
    compiles = True
    loads_torch = False

    def setup(self, task: Task) -> float:
        try:
            import jax
            import jax.numpy as jnp
            import numpyro
            from jax import lax, random
            from numpyro import distributions as dist
            from numpyro import optim
            from numpyro.infer import SVI, Trace_ELBO
        except ImportError as error:
            raise NotInstalledError(f"{error}; pip install 'vae_pyro[bench]'") from error
        if task.device.startswith("cuda") and jax.default_backend() != "gpu":
            raise NotInstalledError("this jax has no GPU")

        jax.config.update("jax_default_matmul_precision", "highest")
        self.task, self.jax, net = task, jax, task.network
        self.images = jnp.asarray(training_images(task))
        start = [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in initial_weights(net, task.seed)]
        half = len(net.hidden) + 1
        activation = jax.nn.relu if net.activation == "relu" else jnp.tanh

        def dense(layers: Any, h: Any) -> Any:
            for weight, bias in layers[:-1]:
                h = activation(h @ weight + bias)
            weight, bias = layers[-1]
            return h @ weight + bias

        def model(x: Any) -> None:
            decoder = numpyro.param("decoder", start[half:])
            with numpyro.plate("data", len(x)):
                z = numpyro.sample("z", dist.Normal(jnp.zeros(net.latent), 1.0).to_event(1))
                numpyro.sample("x", dist.Bernoulli(logits=dense(decoder, z)).to_event(1), obs=x)

        def guide(x: Any) -> None:
            encoder = numpyro.param("encoder", start[:half])
            with numpyro.plate("data", len(x)):
                loc, log_scale = jnp.split(dense(encoder, x), 2, axis=-1)
                numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

        adam = optim.Adam(LEARNING_RATE, b1=BETAS[0], b2=BETAS[1], eps=eps_for_sum(task.batch))
        svi = SVI(model, guide, adam, Trace_ELBO())

        def epoch(state: Any, key: Any, images: Any) -> Any:
            order_key, noise_key = random.split(key)
            order = random.permutation(order_key, task.num_images)

            def step(number: Any, carried: Any) -> Any:
                state, total = carried
                rows = lax.dynamic_slice_in_dim(order, number * task.batch, task.batch)
                x = random.bernoulli(random.fold_in(noise_key, number), images[rows] / 255.0).astype(jnp.float32)
                state, loss = svi.update(state, x)
                return state, total + loss

            return lax.fori_loop(0, task.steps, step, (state, 0.0))

        began = perf_counter()
        self.key = random.key(task.seed)
        self.state = svi.init(self.key, jnp.zeros((task.batch, PIXELS)))
        self.compiled = jax.jit(epoch).lower(self.state, self.key, self.images).compile()
        seconds = perf_counter() - began
        # A first run fills pools and caches; its result is dropped, and the weights are the initial ones.
        jax.block_until_ready(self.compiled(self.state, self.key, self.images))
        return seconds

    def epoch(self) -> float:
        self.key, key = self.jax.random.split(self.key)
        self.state, total = self.compiled(self.state, key, self.images)
        return float(total) / (self.task.steps * self.task.batch)

    def synchronize(self) -> None:
        self.jax.block_until_ready(self.state)

    def device_memory(self) -> int | None:
        statistics = self.jax.devices()[0].memory_stats()
        return statistics.get("peak_bytes_in_use") if statistics else None


CONTENDERS: dict[str, Callable[[], Contender]] = {
    "torch": HandWritten,
    "dataloader": UsualScript,
    "stock": StockSVI,
    "numpyro": NumPyro,
    "compiled": Compiled,
    "ensemble-1": lambda: Compiled(1),
    "ensemble-4": lambda: Compiled(4),
    "ensemble-16": lambda: Compiled(16),
}
