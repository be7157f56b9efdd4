"""Ten pairs as they are written outside this package, with log p(x) by quadrature or in closed form.

Networks are small and unfitted: what is tested is that estimates are those of the pair, not that the pair is good.
Guides are wide enough for importance sampling.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.nn import functional

from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.densities.pair import PairLike

NUM_DATA = 24


@dataclass(frozen=True)
class Foreign:
    """A pair with data.

    Attributes:
        pair: model and guide.
        x: data, ``(datum, *x_shape)``.
        log_evidence: log p(x), or log p(x | y) where y is given, nats, ``(datum,)``, without a run of the programs.
        y: classes that the programs are given.
        refuses: what part of its sentence each function refuses this pair with.
    """

    pair: PairLike
    x: Tensor
    log_evidence: Tensor
    y: Tensor | None = None
    refuses: dict[str, str] = field(default_factory=dict)


def quadrature(log_joint: Callable[[Tensor], Tensor], dim: int, *, width: float = 7.0, points: int = 141) -> Tensor:
    """log of the integral over z in R^dim of exp(log_joint(z)): z ``(point, 1, dim)`` -> ``(point, datum)``."""
    axis = torch.linspace(-width, width, points, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * dim).reshape(-1, 1, dim)
    with torch.no_grad():
        values = log_joint(z)
    return values.double().logsumexp(0) + dim * log(float(axis[1] - axis[0]))


def normal(value: Tensor, loc: Any = 0.0, scale: Any = 1.0) -> Tensor:
    """Log density of a Gaussian, element by element."""
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return -0.5 * ((value - loc) / scale) ** 2 - scale.log() - 0.5 * log(2 * pi)


def bernoulli(value: Tensor, logits: Tensor) -> Tensor:
    """Log probability of 0 or 1, element by element."""
    return value * logits - functional.softplus(logits)


def binary(*shape: int, seed: int = 0) -> Tensor:
    with seeded(seed):
        return (torch.rand(*shape) > 0.5).float()


class Tutorial(nn.Module):
    """The VAE of the usual tutorial: images that the programs flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = x.new_zeros(x.shape[0], 2), x.new_ones(x.shape[0], 2)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.reshape(-1, 6))

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, _ = self.encoder(x.reshape(-1, 6)).chunk(2, -1)
            pyro.sample("latent", dist.Normal(0.3 * loc, 1.0).to_event(1))


def tutorial() -> Foreign:
    with seeded(0):
        programs = Tutorial()
    x = binary(NUM_DATA, 1, 2, 3)
    decoder = programs.decoder.double().requires_grad_(False)
    flat = x.reshape(-1, 6).double()
    exact = quadrature(lambda z: normal(z).sum(-1) + bernoulli(flat, decoder(z)).sum(-1), 2)
    programs.float()
    return Foreign((programs.model, programs.guide), x, exact)


class SemiSupervised(nn.Module):
    """A class of which some are known, and a style; nothing is known here."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.encoder, self.decoder = nn.Linear(5, 3), nn.Linear(8, 2), nn.Linear(4, 5)

    def model(self, xs: Tensor, ys: Tensor | None = None) -> None:
        pyro.module("ss_vae", self)
        with pyro.plate("data", xs.size(0)):
            zs = pyro.sample("z", dist.Normal(xs.new_zeros(xs.size(0), 1), 1.0).to_event(1))
            alpha = xs.new_ones(xs.size(0), 3) / 3.0
            ys = pyro.sample("y", dist.OneHotCategorical(alpha), obs=ys)
            logits = self.decoder(torch.cat([zs, ys], -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=xs)

    @config_enumerate
    def guide(self, xs: Tensor, ys: Tensor | None = None) -> None:
        with pyro.plate("data", xs.size(0)):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(logits=self.classifier(xs)))
            loc = self.encoder(torch.cat([xs, ys], -1))[..., :1]  # of two shapes where particles are a dimension
            pyro.sample("z", dist.Normal(0.3 * loc, 1.0).to_event(1))


def semi_supervised() -> Foreign:
    with seeded(1):
        programs = SemiSupervised()
    x = binary(NUM_DATA, 5, seed=1)
    decoder = programs.decoder.double().requires_grad_(False)

    def log_joint(z: Tensor) -> Tensor:
        terms = []
        for label in torch.eye(3, dtype=torch.float64):
            logits = decoder(torch.cat([z, label.expand(len(z), 1, 3)], -1))
            terms.append(bernoulli(x.double(), logits).sum(-1) - log(3.0))
        return normal(z).sum(-1) + torch.stack(terms).logsumexp(0)

    exact = quadrature(log_joint, 1, points=2001)
    programs.float()
    return Foreign((programs.model, programs.guide), x, exact, refuses={"gaps": "real-valued"})


def mixture() -> Foreign:
    """The class is summed out of the model, and no site of the guide."""
    means, share = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]]), torch.tensor([0.5, 0.3, 0.2])

    @config_enumerate
    def model(data: Tensor) -> None:
        with pyro.plate("rows", len(data)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            component = pyro.sample("component", dist.Categorical(share))
            loc = means[component] + z.unsqueeze(-1)
            pyro.sample("obs", dist.Normal(loc, 0.7).to_event(1), obs=data)

    def guide(data: Tensor) -> None:
        with pyro.plate("rows", len(data)):
            pyro.sample("z", dist.Normal(0.2 * data.sum(-1), 1.0))

    with seeded(2):
        x = means[torch.multinomial(share, NUM_DATA, replacement=True)] + torch.randn(NUM_DATA, 1)
        x = x + 0.7 * torch.randn(NUM_DATA, 2)
    covariance = 0.49 * torch.eye(2) + 1.0
    terms = [
        dist.MultivariateNormal(mean, covariance).log_prob(x) + p.log() for mean, p in zip(means, share, strict=True)
    ]
    return Foreign((model, guide), x, torch.stack(terms).logsumexp(0))


class ProdLDA(nn.Module):
    """Documents as counts of words; decoder and encoder normalise batches and drop out, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.beta, self.norm = nn.Linear(2, 8, bias=False), nn.BatchNorm1d(8, affine=False)
        self.encoder = nn.Sequential(nn.Linear(8, 4), nn.Softplus(), nn.Linear(4, 2), nn.BatchNorm1d(2, affine=False))
        self.drop = nn.Dropout(0.2)

    def model(self, docs: Tensor) -> None:
        pyro.module("prodlda", self)
        with pyro.plate("documents", docs.shape[0]):
            loc, scale = docs.new_zeros((docs.shape[0], 2)), docs.new_ones((docs.shape[0], 2))
            logtheta = pyro.sample("logtheta", dist.Normal(loc, scale).to_event(1))
            theta = functional.softmax(logtheta, -1)
            words = functional.softmax(self.norm(self.beta(self.drop(theta))), dim=1)  # takes batches of vectors alone
            total = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total, words), obs=docs)

    def guide(self, docs: Tensor) -> None:
        with pyro.plate("documents", docs.shape[0]):
            loc = self.encoder(docs)
            pyro.sample("logtheta", dist.Normal(0.2 * loc, 1.0).to_event(1))


def prodlda() -> Foreign:
    with seeded(3):
        programs = ProdLDA()
        programs.norm.running_mean = torch.randn(8) * 0.3
        x = torch.poisson(torch.full((NUM_DATA, 8), 1.5))
    beta, mean = programs.beta.weight.detach().double(), programs.norm.running_mean.double()

    def log_joint(z: Tensor) -> Tensor:
        words = ((z.softmax(-1) @ beta.T - mean) / (1 + 1e-5) ** 0.5).log_softmax(-1)
        log_px = (
            (x.double() * words).sum(-1) + torch.lgamma(x.double().sum(-1) + 1) - torch.lgamma(x.double() + 1).sum(-1)
        )
        return normal(z).sum(-1) + log_px

    return Foreign((programs.model, programs.guide), x, quadrature(log_joint, 2))


class Conditional(nn.Module):
    """p(x | y) with a prior that depends on the class; the argument is neither named y nor optional."""

    def __init__(self) -> None:
        super().__init__()
        self.of_label, self.decoder, self.encoder = nn.Embedding(3, 2), nn.Linear(2, 4), nn.Linear(4, 2)

    def model(self, images: Tensor, labels: Tensor) -> None:
        with pyro.plate("images", len(images)):
            z = pyro.sample("z", dist.Normal(self.of_label(labels), 1.0).to_event(1))
            pyro.sample("image", dist.Normal(self.decoder(z), 0.8).to_event(1), obs=images)

    def guide(self, images: Tensor, labels: Tensor) -> None:
        with pyro.plate("images", len(images)):
            pyro.sample("z", dist.Normal(self.of_label(labels) + 0.3 * self.encoder(images), 0.9).to_event(1))


def conditional() -> Foreign:
    with seeded(4):
        programs = Conditional()
        x, y = torch.randn(NUM_DATA, 4), torch.arange(NUM_DATA) % 3
    weight, bias, loc = (
        part.detach() for part in (programs.decoder.weight, programs.decoder.bias, programs.of_label.weight)
    )
    covariance = weight @ weight.T + 0.64 * torch.eye(4)
    exact = dist.MultivariateNormal(loc[y] @ weight.T + bias, covariance).log_prob(x)
    return Foreign((programs.model, programs.guide), x, exact, y=y)


class ScANVI(nn.Module):
    """Counts of genes: class, its latent, the cell's latent, and a term of the training in the guide."""

    def __init__(self) -> None:
        super().__init__()
        self.z_of = nn.Linear(4, 1)  # of (z2, y)
        self.decoder, self.encoder, self.classifier = nn.Linear(1, 5), nn.Linear(5, 2), nn.Linear(1, 3)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), pyro.poutine.scale(scale=0.01):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)), obs=y)
            z1 = pyro.sample("z1", dist.Normal(self.z_of(torch.cat([z2, y], -1)), 0.8).to_event(1))
            rate = pyro.deterministic("rate", self.decoder(z1).exp(), event_dim=1)
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)), pyro.poutine.scale(scale=0.01):
            loc = self.encoder((1 + x).log())
            z1 = pyro.sample("z1", dist.Normal(0.3 * loc[..., :1], 1.0).to_event(1))
            logits = self.classifier(z1)
            given = y is not None
            y = y if given else pyro.sample("y", dist.OneHotCategorical(logits=logits))
            penalty = -3.0 * dist.OneHotCategorical(logits=logits).log_prob(y)
            pyro.factor("classification_loss", penalty, has_rsample=False)
            pyro.sample("z2", dist.Normal(0.2 * z1, 1.0).to_event(1))


def scanvi() -> Foreign:
    with seeded(5):
        programs = ScANVI()
        x = torch.poisson(torch.full((NUM_DATA, 5), 2.0))
    z_of, decoder = (part.double().requires_grad_(False) for part in (programs.z_of, programs.decoder))

    def log_joint(z: Tensor) -> Tensor:
        z2, z1 = z[..., :1], z[..., 1:]
        terms = []
        for label in torch.eye(3, dtype=torch.float64):
            loc = z_of(torch.cat([z2, label.expand(len(z), 1, 3)], -1))
            terms.append(normal(z1, loc, 0.8).sum(-1) - log(3.0))
        rate = decoder(z1)
        log_px = (x.double() * rate - rate.exp() - torch.lgamma(x.double() + 1)).sum(-1)
        return normal(z2).sum(-1) + torch.stack(terms).logsumexp(0) + log_px

    exact = quadrature(log_joint, 2)
    programs.float()
    return Foreign((programs.model, programs.guide), x, exact, refuses={"gaps": "real-valued"})


class Recurrent(nn.Module):
    """A decoder that unrolls a GRU, which takes three dimensions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out, self.encoder = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 1), nn.Linear(4, 1)

    def decode(self, z: Tensor) -> Tensor:
        hidden, _ = self.gru(z[..., None, None].repeat(1, 4, 1))
        loc: Tensor = self.out(hidden).squeeze(-1)
        return loc

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("sequences", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            value: Tensor = pyro.sample("x", dist.Normal(self.decode(z), 0.7).to_event(1), obs=x)
            return value

    def guide(self, x: Tensor) -> None:
        with pyro.plate("sequences", x.shape[0]):
            pyro.sample("z", dist.Normal(0.3 * self.encoder(x).squeeze(-1), 1.0))


def recurrent() -> Foreign:
    with seeded(6):
        programs = Recurrent()
        x = 0.7 * torch.randn(NUM_DATA, 4)
    programs.double().requires_grad_(False)
    exact = quadrature(
        lambda z: normal(z).sum(-1) + normal(x.double(), programs.decode(z[:, 0, 0]).unsqueeze(1), 0.7).sum(-1),
        1,
        points=2001,
    )
    programs.float()
    return Foreign((programs.model, programs.guide), x, exact)


class Convolutional(nn.Module):
    """The usual decoder of images, which merges all dimensions of its batch, and draws by ``size``."""

    def __init__(self) -> None:
        super().__init__()
        self.full, self.up = nn.Linear(2, 16), nn.ConvTranspose2d(4, 1, 3, padding=1)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.up(self.full(z).relu().view(-1, 4, 2, 2))
        return image

    def model(self, x: Tensor | None = None, *, size: int = 1) -> None:
        pyro.module("convolutional", self)
        with pyro.plate("data", size if x is None else x.shape[0]):
            z = pyro.sample("latent", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("image", dist.Bernoulli(logits=self.decode(z)).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", x.shape[0]):
            loc, _ = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(0.3 * loc, 1.0).to_event(1))


def convolutional() -> Foreign:
    with seeded(7):
        programs = Convolutional()
    x = binary(NUM_DATA, 1, 2, 2, seed=7)
    programs.double().requires_grad_(False)
    flat = x.reshape(NUM_DATA, -1).double()
    exact = quadrature(
        lambda z: normal(z).sum(-1) + bernoulli(flat, programs.decode(z).reshape(len(z), 1, -1)).sum(-1), 2
    )
    programs.float()
    return Foreign((programs.model, programs.guide), x, exact)


def automatic() -> Foreign:
    """An AutoGuide, which holds parameters for each of the rows that it was set up with."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(z.unsqueeze(-1), 1.0).expand([len(x), 3]).to_event(1), obs=x)

    with seeded(8):
        x = torch.randn(NUM_DATA, 3) + torch.randn(NUM_DATA, 1)
    guide = AutoNormal(model, init_scale=0.6)
    with isolated(0):
        guide(x)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 1).log_prob(x)
    refuses = dict.fromkeys(("calibrate", "gaps"), "not amortized")
    return Foreign((model, guide), x, exact, refuses=refuses)


def discrete() -> Foreign:
    """A latent with four values, in both programs."""
    table = torch.tensor([[-1.0, 0.5], [0.0, 0.0], [1.0, -1.0], [2.0, 1.0]])

    def model(x: Tensor, scale: float = 1.0) -> None:
        with pyro.plate("minibatch", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(4) / 4))
            pyro.sample("x", dist.Normal(table[k], scale).to_event(1), obs=x)

    def guide(x: Tensor, scale: float = 1.0) -> None:
        with pyro.plate("minibatch", len(x)):
            pyro.sample("k", dist.Categorical(logits=0.7 * normal(x.unsqueeze(1), table).sum(-1)))

    with seeded(9):
        x = table[torch.randint(4, (NUM_DATA,))] + torch.randn(NUM_DATA, 2)
    exact = torch.logsumexp(normal(x.unsqueeze(1), table).sum(-1), 1) - log(4.0)
    pair = functools.partial(model, scale=1.0), functools.partial(guide, scale=1.0)
    return Foreign(pair, x, exact, refuses={"gaps": "real-valued"})


PAIRS: dict[str, Callable[[], Foreign]] = {
    "tutorial": tutorial,
    "semi_supervised": semi_supervised,
    "mixture": mixture,
    "prodlda": prodlda,
    "conditional": conditional,
    "scanvi": scanvi,
    "recurrent": recurrent,
    "convolutional": convolutional,
    "automatic": automatic,
    "discrete": discrete,
}
