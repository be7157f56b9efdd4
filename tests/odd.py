"""Programs that are written in unusual ways, around one linear Gaussian model whose evidence is known.

``z ~ N(0, 1)``, ``x | z ~ N(z, I)`` in R^3: log p(x) is that of N(0, I + 1). Each case is right, or refused.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn
from torch.nn import functional

from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.densities.pair import Pair, PairLike

NUM_DATA = 20
type Program = Callable[..., Any]


@dataclass(frozen=True)
class Odd:
    """A pair with data, and log p(x) of each datum, or the sentence that refuses."""

    pair: PairLike
    x: Tensor
    log_evidence: Tensor | None = None
    refused: str = ""
    mask: Tensor | None = None


def data(seed: int = 0) -> Tensor:
    with seeded(seed):
        return torch.randn(NUM_DATA, 3) + torch.randn(NUM_DATA, 1)


def evidence(x: Tensor) -> Tensor:
    return dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 1).log_prob(x)


def plain(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)


def guide_in(plate: str = "data", site: str = "z", **options: Any) -> Program:
    def guide(x: Tensor) -> None:
        with pyro.plate(plate, len(x), **options):
            pyro.sample(site, dist.Normal(x.reshape(len(x), -1).sum(-1) / 4, 0.6))

    return guide


def of_data(model: Program, guide: Program | None = None, **options: Any) -> Odd:
    x = data()
    return Odd((model, guide or guide_in()), x, evidence(x), **options)


def scaled_plate() -> Odd:
    """A plate that stands for a thousand data, of which x is a batch."""

    def model(x: Tensor) -> None:
        with pyro.plate("rows", 1000, subsample=x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", 1000, subsample=x):
            pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.6))

    return of_data(model, guide)


def by_factor() -> Odd:
    """The likelihood is a factor: no distribution of x."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("loglik", dist.Normal(z[..., None], 1.0).log_prob(x).sum(-1))

    return of_data(model)


class Simulator:
    """No module, and holds some: with dropout in training mode, by ways that do not run a `forward`."""

    def __init__(self) -> None:
        self.parts = {"noise": nn.Dropout(0.5), "norm": nn.BatchNorm1d(3, affine=False)}

    def __call__(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            kept = self.parts["noise"](z)
            loc = kept[..., None].expand(*z.shape, 3)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        seen = functional.dropout(x, 0.5, training=self.parts["noise"].training)
        with pyro.plate("data", len(x)):
            normed = self.parts["norm"](seen)
            pyro.sample("z", dist.Normal(normed.sum(-1) / 4, 0.6))


def plain_object() -> Odd:
    programs = Simulator()
    return of_data(programs, programs.guide)


def inner_plate() -> Odd:
    """Elements of x are in a plate of their own, to the right of the data's."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 3, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.sum(-1, keepdim=True) / 4, 0.6))

    return of_data(model, guide)


def sequential_plate() -> Odd:
    def model(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 1.0).expand([3]).to_event(1), obs=x[i])

    def guide(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z_{i}", dist.Normal(x[i].sum() / 4, 0.6))

    return Odd((model, guide), data(), refused="vectorised plate")


def global_latent() -> Odd:
    def model(x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(0.0, 0.1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = (z + shift)[..., None].expand(*z.shape, 3)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("shift", dist.Normal(0.0, 0.1))
        guide_in()(x)

    return Odd((model, guide), data(), refused="'shift'")


def simplex_latent() -> Odd:
    """A Dirichlet latent; x is its exact posterior's."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
            pyro.sample("counts", dist.Multinomial(100, p, validate_args=False), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Dirichlet(1 + x))

    with seeded(1):
        x = torch.poisson(torch.full((NUM_DATA, 3), 2.0))
    exact = dist.DirichletMultinomial(torch.ones(3), x.sum(-1)).log_prob(x)
    return Odd((model, guide), x, exact)


def other_order() -> Odd:
    """Two latents, drawn by the guide in the other order, of which one is half of z."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 0.5**0.5))
            z = pyro.sample("z", dist.Normal(a, 0.5**0.5))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.6))
            pyro.sample("a", dist.Normal(z / 2, 0.6))

    return of_data(model, guide)


def own_code_for_missing() -> Odd:
    """-100 stands for an element that is not there."""
    x = data()
    x[::2, 0] = -100.0

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            elements = dist.Normal(z[..., None], 1.0).expand([*z.shape, 3])
            pyro.sample("x", elements.mask(x > -50).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            seen = x > -50
            pyro.sample("z", dist.Normal((x * seen).sum(-1) / (1 + seen.sum(-1)), 0.7))

    partly = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x[:, 1:])
    return Odd((model, guide), x, torch.where(x[:, 0] > -50, evidence(x), partly))


def weights_with_a_prior() -> Odd:
    class Regression(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.scale = PyroSample(dist.LogNormal(0.0, 0.1))

        def forward(self, x: Tensor) -> None:
            scale = self.scale
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z[..., None], scale).expand([*z.shape, 3]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("scale", dist.LogNormal(0.0, 0.1))
        guide_in()(x)

    return Odd((Regression(), guide), data(), refused="'scale'")


def two_required_arguments() -> Odd:
    def model(x: Tensor, labels: Tensor, weights: Tensor) -> None:
        plain(x)

    return Odd((model, guide_in()), data(), refused="weights")


def double_module() -> Odd:
    """Parameters are float64, the data float32, and only the module's run tells."""
    with seeded(0):
        registry = {"decoder": nn.Linear(1, 3).double().requires_grad_(False)}
    registry["decoder"].weight.fill_(1.0)
    registry["decoder"].bias.zero_()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(registry["decoder"](z[..., None]), 1.0).to_event(1), obs=x)

    return of_data(model)


def subsample_inside() -> Odd:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x[rows])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("z", dist.Normal(x[rows].sum(-1) / 4, 0.6))

    return Odd((model, guide), data(), refused="subsample")


def joint_autoguide() -> Odd:
    """One latent vector over all rows."""
    guide, x = AutoDiagonalNormal(plain), data()
    with isolated(0):
        guide(x)
    return Odd((plain, guide), x, refused="_AutoDiagonalNormal_latent|not amortized")


def tempered() -> Odd:
    """Scales of a loss are no part of a density."""

    def model(x: Tensor) -> None:
        with poutine.scale(scale=0.01):
            plain(x)

    return of_data(model)


def mask_ignored() -> Odd:
    """Takes a mask, and scores what it hides all the same."""

    def model(x: Tensor, mask: Tensor | None = None) -> None:
        plain(x)

    def guide(x: Tensor, mask: Tensor | None = None) -> None:
        guide_in()(x)

    mask = torch.ones(NUM_DATA, 3, dtype=torch.bool)
    mask[3:7, 0] = False
    return Odd((model, guide), data(), refused="mask", mask=mask)


def squares_plate() -> Odd:
    """A plate of as many columns as a small batch has rows is not taken for that of the data."""
    x = torch.randn(NUM_DATA, 5, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor) -> None:
        with pyro.plate("columns", 5, dim=-2):
            pass
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z[..., None].expand(*z.shape, 5)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.sum(-1) / 6, 0.5))

    exact = dist.MultivariateNormal(torch.zeros(5), torch.eye(5) + 1).log_prob(x)
    return Odd((model, guide), x, exact)


def twice_observed() -> Odd:
    """x is observed at two sites: which is its likelihood?"""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)
            pyro.sample("again", dist.Normal(0.0, 1.0).expand([len(x), 3]).to_event(1), obs=x)

    return Odd((model, guide_in()), data(), refused="observed=")


def twice_observed_and_told() -> Odd:
    case = twice_observed()
    model, guide = case.pair  # type: ignore[misc]
    return Odd(Pair(model, guide, observed="x"), case.x, evidence(case.x))


def partial_program() -> Odd:
    def model(scale: float, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)

    return of_data(functools.partial(model, 1.0))


def extra_argument() -> Odd:
    """An argument with a default that nobody gives, as annealing has."""

    def model(x: Tensor, annealing_factor: float = 1.0) -> None:
        with poutine.scale(scale=annealing_factor):
            plain(x)

    return of_data(model)


def noise_of_its_own() -> Odd:
    """Dropout that no module's mode switches off."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = functional.dropout(z[..., None].expand(*z.shape, 3), 0.5)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return Odd((model, guide_in()), data(), refused="differs between two runs at the same draws")


def moments_of_the_batch() -> Odd:
    """Normalisation by the moments of whatever is in the batch, in evaluation mode as well."""
    norm = nn.BatchNorm1d(3, affine=False, track_running_stats=False)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(norm(x).sum(-1) / 4, 0.6))

    return Odd((plain, guide), data(), refused="guide at a datum depend on the other data of its batch")


def at_most_seven_rows() -> Odd:
    """Neither a dimension of particles nor further rows: one particle after the other."""

    def model(x: Tensor) -> None:
        if len(x) > 7:
            raise RuntimeError("compiled for 7 rows")
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.view(-1, 1), 1.0).expand([len(x), 3]).to_event(1), obs=x)

    x = data()[:6]
    return Odd((model, guide_in()), x, evidence(x))


CASES: dict[str, Callable[[], Odd]] = {
    function.__name__: function
    for function in (
        scaled_plate,
        by_factor,
        plain_object,
        inner_plate,
        sequential_plate,
        global_latent,
        simplex_latent,
        other_order,
        own_code_for_missing,
        weights_with_a_prior,
        two_required_arguments,
        double_module,
        subsample_inside,
        joint_autoguide,
        tempered,
        mask_ignored,
        squares_plate,
        twice_observed,
        twice_observed_and_told,
        partial_program,
        extra_argument,
        noise_of_its_own,
        moments_of_the_batch,
        at_most_seven_rows,
    )
}
