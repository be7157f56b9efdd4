"""Pairs of Pyro programs, optimizers and data that the tests of the compiled step share."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import seeded
from vae_pyro.data.split import Split
from vae_pyro.svi.compiled_svi import CompiledSVI

type Build = Callable[[], tuple[Any, Any]]


def data(rows: int = 40, columns: int = 6) -> Tensor:
    with seeded(3):
        return (torch.rand(rows, columns, dtype=torch.float64) < 0.4).double()


def small_vae(seed: int = 0, **options: Any) -> VAE:
    return VAE(VAEConfig(x_shape=(6,), latent_dim=2, encoder="mlp:hidden=[7]", **options), seed=seed).double()


def vae_pair() -> tuple[Any, Any]:
    vae = small_vae()
    return vae.model, vae.guide


class Regression(PyroModule):
    """Bayesian linear regression, of Pyro's introductory tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def regression_pair() -> tuple[Any, Any]:
    model = Regression()
    return model, AutoNormal(model)


def regression_data() -> tuple[Tensor, Tensor]:
    with seeded(5):
        x = torch.randn(50, 3)
        return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 + 0.2 * torch.randn(50)


# Rubin 1981, Estimation in parallel randomized experiments: eight schools.
EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools_pair() -> tuple[Any, Any]:
    def model(errors: Tensor, effects: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(errors)):
            eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(mu + tau * eta, errors), obs=effects)

    return model, AutoNormal(model)


def lazy_pair() -> tuple[Any, Any]:
    """Parameters that the programs make themselves, with constraints."""

    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.5).double(), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), scale).expand([len(x), 6]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        weight = pyro.param("weight", lambda: 0.1 * torch.randn(6, 2).double())
        share = pyro.param("share", torch.tensor([0.3, 0.7]).double(), constraint=dist.constraints.simplex)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weight, share).to_event(1))

    return model, guide


def trajectory(svi: SVI, *args: Any, steps: int = 6, seed: int = 1) -> list[float]:
    torch.manual_seed(seed)
    return [svi.step(*args) for _ in range(steps)]


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: pyro.optim.Adam({"lr": 0.02}),
    "adam decay": lambda: pyro.optim.Adam({"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.99)}),
    "adamw": lambda: pyro.optim.AdamW({"lr": 0.02, "weight_decay": 0.2}),
    "clipped": lambda: pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.9, "clip_norm": 0.5}),
    "sgd": lambda: pyro.optim.SGD({"lr": 1e-3}),
    "momentum": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    "nesterov": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "rmsprop": lambda: pyro.optim.RMSprop({"lr": 0.01}),
    "rmsprop centered": lambda: pyro.optim.RMSprop({"lr": 0.01, "momentum": 0.5, "centered": True}),
    "per parameter": lambda: pyro.optim.Adam(lambda name: {"lr": 0.05 if "scale" in name else 0.01}),
}


def torch_svi(vae: VAE, lr: float = 0.02, loss: Any = None, **options: Any) -> CompiledSVI:
    optimizer = torch.optim.Adam(vae.parameters(), lr=lr)
    options.setdefault("compile", True)
    return CompiledSVI(vae.model, vae.guide, optimizer, loss or Trace_ELBO(), **options)


def values(vae: VAE) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in vae.parameters()]


def grey() -> Split:
    with seeded(1):
        return Split((torch.rand(40, 6) * 256).to(torch.uint8), top=255.0, draw="binarize")
