"""Linear Gaussian hierarchies whose evidence and posterior are known, and VAEs that equal them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import seeded


@dataclass(frozen=True)
class Hierarchy:
    """z_L ~ N(0, I), z_l ~ N(A_l z_(l+1), diag(scale_l^2)), x ~ N(W z_1 + mean, variance I); float64."""

    weight: Tensor  # (d, q_1)
    lifts: tuple[Tensor, ...]  # A_l, (q_l, q_(l+1))
    scales: tuple[Tensor, ...]  # (q_l,)
    mean: Tensor  # (d,)
    variance: float

    @property
    def dims(self) -> list[int]:
        return [self.weight.shape[1], *(lift.shape[1] for lift in self.lifts)]

    @property
    def covariance(self) -> Tensor:
        """Of (x, z_1, ..., z_L), from what each is of independent standard normals."""
        rows = [torch.eye(self.dims[-1], dtype=torch.float64)]
        for lift, scale in zip(reversed(self.lifts), reversed(self.scales), strict=True):
            rows.insert(0, torch.cat([lift @ rows[0], scale.diag()], dim=1))
        rows.insert(
            0,
            torch.cat(
                [self.weight @ rows[0], self.variance**0.5 * torch.eye(len(self.mean), dtype=torch.float64)], dim=1
            ),
        )
        width = rows[0].shape[1]
        factor = torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[1])) for row in rows])
        return factor @ factor.T

    def columns(self, *which: int) -> Tensor:
        """Indices of x (0) and of the layers (1 to L) in `covariance`."""
        ends = np.cumsum([0, len(self.mean), *self.dims])
        return torch.cat([torch.arange(ends[i], ends[i + 1]) for i in which])

    def given(self, what: tuple[int, ...], on: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Gain and covariance of some of (x, z_1, ...) given others."""
        total, a, b = self.covariance, self.columns(*what), self.columns(*on)
        gain = torch.linalg.solve(total[b][:, b], total[b][:, a]).T
        return gain, total[a][:, a] - gain @ total[b][:, a]

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), shape (datum,)."""
        at = self.columns(0)
        return torch.distributions.MultivariateNormal(self.mean, self.covariance[at][:, at]).log_prob(x)

    def sample(self, size: int, seed: int) -> Tensor:
        at = self.columns(0)
        with seeded(seed):
            return torch.distributions.MultivariateNormal(self.mean, self.covariance[at][:, at]).sample((size,))

    def layer_kls(self, kind: str, x: Tensor) -> Tensor:
        """What each of two layers adds to KL(p(z, z2 | x) || p(z, z2)), z first, ``(2, datum)``.

        The posterior is taken apart as the guide draws it, p(z | x) p(z2 | z) or p(z2 | x) p(z | z2, x).
        """
        gauss, q = torch.distributions.MultivariateNormal, self.dims[0]
        gain, covariance = self.given((1, 2), (0,))
        loc = (x - self.mean) @ gain.T
        at = self.columns(1, 2)
        prior = gauss(torch.zeros_like(loc), self.covariance[at][:, at])
        total = torch.distributions.kl_divergence(gauss(loc, covariance), prior)
        if kind == "ladder":
            standard = gauss(torch.zeros_like(loc[:, q:]), torch.eye(self.dims[1], dtype=torch.float64))
            top = torch.distributions.kl_divergence(gauss(loc[:, q:], covariance[q:, q:]), standard)
        else:  # E over z of KL(N(z2; G z, U) || N(0, I))
            up, spread = self.given((2,), (1,))
            second = up @ (covariance[:q, :q] + loc[:, :q, None] * loc[:, None, :q]) @ up.T
            trace = second.diagonal(dim1=-2, dim2=-1).sum(-1) + spread.trace()
            top = 0.5 * (trace - torch.logdet(spread) - len(spread))
        return torch.stack([total - top, top])


def orthonormal(rows: int, columns: int) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64))[0]


def hierarchy(
    kind: str, d: int = 5, dims: tuple[int, ...] = (3, 2), variance: float = 0.25, seed: int = 0
) -> Hierarchy:
    """One whose posterior has the independences that a guide of this kind states, and no more.

    bottom_up: q(z_(l+1) | z_l) is diagonal where the columns of A_l are orthogonal in the metric of 1 / scale_l^2;
    p(z | x) is not. ladder: the columns of what leads from z_l to x are orthogonal in the metric of p(x | z_l).
    both: all columns are axes, and p(z | x) is diagonal as well.
    """
    with seeded(seed):
        scales = tuple(0.5 + torch.rand(q, dtype=torch.float64) for q in dims[:-1])
        mean = torch.randn(d, dtype=torch.float64)
        lifts: list[Tensor] = []
        if kind != "ladder":
            weight = orthonormal(d, dims[0]) if kind == "both" else torch.randn(d, dims[0], dtype=torch.float64)
            for q, above, scale in zip(dims, dims[1:], scales, strict=False):
                length = 1 + torch.rand(above, dtype=torch.float64)
                # A layer in the middle is not white given the one above it alone, so that its columns are axes.
                axes = len(dims) > 2 or kind == "both"
                columns = torch.eye(q, above, dtype=torch.float64) if axes else orthonormal(q, above)
                lifts.append(scale[:, None] * columns * length)
            return Hierarchy(weight, tuple(lifts), scales, mean, variance)
        weight = orthonormal(d, dims[0]) * (0.5 + torch.rand(dims[0], dtype=torch.float64))
        reach, noise = weight, variance * torch.eye(d, dtype=torch.float64)
        for q, above, scale in zip(dims, dims[1:], scales, strict=False):
            noise = noise + reach @ torch.diag(scale**2) @ reach.T
            metric = (reach.T @ torch.linalg.solve(noise, reach)).diagonal()
            columns = torch.eye(q, above, dtype=torch.float64) if len(dims) > 2 else orthonormal(q, above)
            lifts.append(metric[:, None] ** -0.5 * columns * (0.5 + torch.rand(above, dtype=torch.float64)))
            reach = reach @ lifts[-1]
        return Hierarchy(weight, tuple(lifts), scales, mean, variance)


def diagonal(matrix: Tensor) -> Tensor:
    """The diagonal of a matrix that has nothing else."""
    torch.testing.assert_close(matrix, matrix.diagonal().diag(), rtol=0, atol=1e-10)
    return matrix.diagonal()


@torch.no_grad()
def set_normal(layer: Any, gain: Tensor, loc: Tensor, scale: Tensor) -> None:
    """Make a `DiagonalNormal` linear: location ``gain x + loc``, a constant scale."""
    layer.linear.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
    layer.linear.bias.copy_(torch.cat([loc, scale.log()]))


@torch.no_grad()
def exact(kind: str, truth: Hierarchy, posterior: str = "full_rank") -> VAE:
    """A VAE of linear layers whose model is the hierarchy and whose guide is its posterior."""
    structure = {"name": kind, "latent_dims": truth.dims[1:], "hidden": []}
    config = VAEConfig(
        x_shape=(len(truth.mean),),
        latent_dim=truth.dims[0],
        likelihood={"name": "gaussian", "scale": truth.variance**0.5},
        posterior=posterior if kind == "bottom_up" else "mean_field",
        encoder="mlp:hidden=[]",
        structure=structure,
    )
    vae = VAE(config, seed=0).double()
    model: Any = vae.model
    guide: Any = vae.guide
    model.decoder.layers[-1].weight.copy_(truth.weight)
    model.decoder.layers[-1].bias.copy_(truth.mean)
    for layer, lift, scale in zip(model.layers, truth.lifts, truth.scales, strict=True):
        set_normal(layer.normal, lift, torch.zeros(len(lift), dtype=torch.float64), scale - layer.min_scale)
    layers = range(1, len(truth.dims) + 1)
    if kind == "bottom_up":
        gain, covariance = truth.given((1,), (0,))
        factor = torch.linalg.cholesky(covariance)
        set_normal(guide.posterior.normal, gain, -gain @ truth.mean, factor.diagonal())
        if posterior == "full_rank":
            guide.posterior.lower.weight.zero_()
            guide.posterior.lower.bias.copy_(factor.flatten()[guide.posterior.position])
        else:
            diagonal(covariance)
        for number, layer in enumerate(guide.upward):
            gain, covariance = truth.given((number + 2,), (number + 1,))
            set_normal(layer.normal, gain, torch.zeros(len(gain), dtype=torch.float64), diagonal(covariance).sqrt())
        return vae
    outputs = [guide.posterior.normal, *(rung.normal for rung in guide.rungs)]
    for number, output in zip(layers, outputs, strict=True):
        if number == len(truth.dims):
            gain, covariance = truth.given((number,), (0,))
        else:  # what x says of z_l: N(x; B z_l + mean, R) as a Gaussian of z_l
            reach, noise = truth.given((0,), (number,))
            covariance = torch.linalg.inv(reach.T @ torch.linalg.solve(noise, reach))
            gain = covariance @ torch.linalg.solve(noise, reach).T
        set_normal(output, gain, -gain @ truth.mean, diagonal(covariance).sqrt())
    return vae


KINDS = ("bottom_up", "ladder")
DIMS = ((3, 2), (3, 2, 2))


def small(kind: str, **changes: Any) -> VAE:
    """Three layers of non-linear networks, float64."""
    config: dict[str, Any] = {
        "x_shape": (6,),
        "latent_dim": 4,
        "likelihood": "gaussian:scale=0.5",
        "encoder": "mlp:hidden=[8],activation=tanh",
        "structure": {"name": kind, "latent_dims": [3, 2], "hidden": [[7], [6, 5]], "activation": "tanh"},
    }
    return VAE(VAEConfig(**{**config, **changes}), seed=0).double()


def data(size: int = 9) -> Tensor:
    with seeded(5):
        return torch.randn(size, 6, dtype=torch.float64)
