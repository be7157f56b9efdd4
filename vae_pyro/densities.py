"""The ledger: log p(x | z), log p(z) and log q(z | x) for every particle and datum, of any Pyro model and guide.

Every estimate is a reduction of it. Contract with the programs: latents are local, inside ``pyro.plate("data", n)``;
``guide(x)`` draws them and ``model(x)`` scores them; both take ``mask`` and ``y`` as keywords where those are used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

type Program = Callable[..., Any]

_PARTICLE_DIM = -2


@dataclass(frozen=True)
class Ledger:
    """Log densities in nats, each of shape ``(particle, datum)``.

    Attributes:
        log_likelihood: log p(x | z), summed over observed sites.
        log_prior: log p(z), summed over latent sites.
        log_guide: log q(z | x), summed over latent sites.
        latents: draws of each latent site, shape ``(particle, datum, *event)``.
        sites: log p and log q of each latent site on its own, ``{"z": (log_prior, log_guide)}``.
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor
    latents: dict[str, Tensor] = field(default_factory=dict)
    sites: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z), shape ``(particle, datum)``."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weight(self) -> Tensor:
        """Log importance weight log p(x, z) - log q(z | x), shape ``(particle, datum)``."""
        return self.log_joint - self.log_guide


def log_densities(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 1,
    mask: Tensor | None = None,
    y: Tensor | None = None,
) -> Ledger:
    """Draw latents from the guide, all particles in one vectorised pass, and score them.

    Differentiable with respect to the parameters of both programs. Draws come from torch's generator as it stands;
    wrap the call in `vae_pyro.isolation.isolated` to seed it.

    Args:
        model: Pyro model that keeps the contract above.
        guide: Pyro guide that keeps it.
        x: data, shape ``(datum, *event)``.
        num_particles: draws for each datum.
        mask: boolean, shape of ``x``, true where observed; passed on where given.
        y: labels or conditions, passed on where given.

    Returns:
        The ledger, each entry of shape ``(num_particles, datum)``.

    Raises:
        ValueError: ``num_particles`` is below 1, or a site lies outside ``plate("data")``.
    """
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    given = {key: value for key, value in (("mask", mask), ("y", y)) if value is not None}
    shape = (num_particles, len(x))
    with pyro.plate("particles", num_particles, dim=_PARTICLE_DIM):
        guide_trace = poutine.trace(guide).get_trace(x, **given)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x, **given)

    total = x.new_zeros(shape)
    log_likelihood, log_prior, log_guide = total, total, total
    latents: dict[str, Tensor] = {}
    sites: dict[str, tuple[Tensor, Tensor]] = {}
    for name, site in _sample_sites(model_trace):
        if not site["is_observed"] and name not in guide_trace:
            raise ValueError(f"latent site {name!r} of the model is not in the guide; draw it in the guide as well")
        log_p = _log_prob(name, site, shape)
        if site["is_observed"]:
            log_likelihood = log_likelihood + log_p
        else:
            log_q = _log_prob(name, guide_trace.nodes[name], shape)
            log_prior, log_guide = log_prior + log_p, log_guide + log_q
            sites[name], latents[name] = (log_p, log_q), site["value"]
    for name, _ in _sample_sites(guide_trace):
        if name not in model_trace:
            raise ValueError(f"site {name!r} of the guide is not in the model; only the model's latents belong there")
    return Ledger(log_likelihood, log_prior, log_guide, latents, sites)


def _sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site):
            yield name, site


def _log_prob(name: str, site: dict[str, Any], shape: tuple[int, int]) -> Tensor:
    frames = [frame.name for frame in site["cond_indep_stack"] if frame.vectorized]
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if "data" not in frames or log_prob.dim() > 2:
        raise ValueError(
            f"site {name!r} has log density of shape {tuple(log_prob.shape)} under the plates {frames or 'none'}; the "
            "ledger wants one number for each particle and datum: put the site in pyro.plate('data', n), and declare "
            "its other dimensions with .to_event()"
        )
    # A subsampling plate's scale N / B is left out on purpose: these are densities of data, not terms of a loss.
    masked: Tensor = scale_and_mask(log_prob, mask=site["mask"])
    return masked.expand(shape)


class LedgerMoments:
    """What the estimates need of a ledger, accumulated over particles in float64 and memory that does not grow.

    Args:
        num_data: number of data in the block.
    """

    def __init__(self, num_data: int) -> None:
        self.count = 0
        self._largest = torch.full((num_data,), -torch.inf, dtype=torch.float64)
        self._weight = torch.zeros(num_data, dtype=torch.float64)  # sum of w / w_max
        self._weight_square = torch.zeros(num_data, dtype=torch.float64)
        self._terms: dict[str, tuple[Tensor, Tensor]] = {}  # mean and sum of squared deviations (Welford)
        self._latents: dict[str, tuple[Tensor, Tensor]] = {}

    def update(self, ledger: Ledger) -> None:
        """Add the particles of ``ledger``."""
        log_weight = ledger.log_weight.detach().to("cpu", torch.float64)
        largest = torch.maximum(self._largest, log_weight.amax(0))
        # Where every weight so far is zero the shift is immaterial, and -inf - -inf would not be a number.
        shift = torch.where(largest.isfinite(), largest, torch.zeros_like(largest))
        keep = torch.exp(self._largest - shift)
        weight = torch.exp(log_weight - shift)
        self._weight = self._weight * keep + weight.sum(0)
        self._weight_square = self._weight_square * keep**2 + (weight**2).sum(0)
        self._largest = largest
        log_likelihood = ledger.log_likelihood.detach().to("cpu", torch.float64)
        terms = {
            "elbo": log_weight,
            "reconstruction": log_likelihood,
            "kl": log_likelihood - log_weight,
        }
        for name, value in terms.items():
            self._terms[name] = merge_moments(self._terms.get(name), self.count, value)
        for name, value in ledger.latents.items():
            draws = value.detach().to("cpu", torch.float64)
            self._latents[name] = merge_moments(self._latents.get(name), self.count, draws)
        self.count += len(log_weight)

    def term(self, name: str) -> tuple[Tensor, Tensor]:
        """Estimate of ``elbo``, ``reconstruction`` or ``kl`` and its Monte Carlo standard error, each ``(datum,)``."""
        mean, squares = self._terms[name]
        return mean, (squares / max(self.count - 1, 1) / self.count).sqrt()

    def log_evidence(self) -> tuple[Tensor, Tensor]:
        """Importance-sampling estimate of log p(x) and its standard error, each ``(datum,)``.

        The estimate is a stochastic lower bound; its bias is about minus half the squared standard error. The error
        comes from the delta method, ``Var(log mean w) = (sum w^2 / (sum w)^2) - 1 / K``.

        References:
            Burda et al. 2016, Importance weighted autoencoders, eq. 8 and sec. 3. arXiv:1509.00519
            Owen 2013, Monte Carlo theory, methods and examples, ch. 9.
        """
        estimate = self._largest + self._weight.log() - torch.tensor(self.count, dtype=torch.float64).log()
        relative = self._weight_square / self._weight**2 - 1 / self.count
        return estimate, relative.clamp(min=0).sqrt()

    def effective_sample_size(self) -> Tensor:
        """``(sum w)^2 / sum w^2`` of each datum, between 1 and K."""
        return self._weight**2 / self._weight_square

    def latent(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean and variance over particles of a latent site, each ``(datum, *event)``."""
        mean, squares = self._latents[name]
        return mean, squares / max(self.count - 1, 1)

    @property
    def latent_names(self) -> list[str]:
        """Names of the latent sites seen so far."""
        return list(self._latents)


def merge_moments(old: tuple[Tensor, Tensor] | None, count: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations over the first dimension, joined with those of ``count`` earlier rows.

    References:
        Chan, Golub & LeVeque 1983, Algorithms for computing the sample variance, The American Statistician 37, eq. 2.1.
    """
    new, mean = len(value), value.mean(0)
    squares = ((value - mean) ** 2).sum(0)
    if old is None:
        return mean, squares
    difference = mean - old[0]
    total = count + new
    return old[0] + difference * (new / total), old[1] + squares + difference**2 * (count * new / total)
