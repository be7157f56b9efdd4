"""Held-out figures of a fitted pair: for each datum, in nats, each with its Monte Carlo standard error."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, erfc, log, prod, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae_pyro.compilation.capture import CaptureError, capture_function
from vae_pyro.compilation.inductor import CompileError, disagreement, inductor
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Given, Split
from vae_pyro.densities.log_densities import Ledger, LedgerMoments, Program, draw_sites, score_latents
from vae_pyro.models.vae import VAE

# Elements of x, over particles and data, that one pass through the decoder holds: small enough for a processor's cache.
ELEMENTS_AT_ONCE = 2_000_000
# Particles times data whose latents are held at once.
_DRAWS_AT_ONCE = 500_000
# Elements of x, over particles and data, beyond which compiling the model's density repays its seconds.
_WORTH_COMPILING = 1_000_000_000
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Evaluation:
    """Estimates for each datum, and their averages.

    Attributes:
        elbo: E_q[log p(x, z) - log q(z | x)], nats, shape ``(datum,)``.
        log_px: log p(x) by importance sampling, nats, shape ``(datum,)``: a lower bound on average, which rises to
            log p(x) with the number of draws.
        kl: E_q[log q(z | x) - log p(z)], nats; ``elbo = reconstruction - kl``, draw by draw.
        reconstruction: E_q[log p(x | z)], nats.
        elbo_se: Monte Carlo standard error of ``elbo``; likewise ``log_px_se``, ``kl_se``, ``reconstruction_se``.
        effective_sample_size: of the importance weights, between 1 and the number of draws.
        activity: variance over data of the posterior mean of each latent, with its Monte Carlo standard error; several
            sites stand one after the other, without classes and missing data
            (`vae_pyro.densities.log_densities.draw_sites`).
        num_elements: observed elements of each datum, which bits per dimension divide by.
        num_samples: draws for each datum.
        discrete: whether log p(x) is the log of a probability; if not, of a density in the units of x.
    """

    elbo: np.ndarray[Any, Any]
    elbo_se: np.ndarray[Any, Any]
    log_px: np.ndarray[Any, Any]
    log_px_se: np.ndarray[Any, Any]
    kl: np.ndarray[Any, Any]
    kl_se: np.ndarray[Any, Any]
    reconstruction: np.ndarray[Any, Any]
    reconstruction_se: np.ndarray[Any, Any]
    effective_sample_size: np.ndarray[Any, Any]
    activity: np.ndarray[Any, Any]
    activity_se: np.ndarray[Any, Any]
    num_elements: np.ndarray[Any, Any]
    num_samples: int
    discrete: bool | None = None

    def __len__(self) -> int:
        return len(self.elbo)

    @property
    def active_units(self) -> int:
        """Latents whose posterior mean varies over data with a variance above 0.01.

        References:
            Burda et al. 2016, Importance weighted autoencoders, sec. 5. arXiv:1509.00519
        """
        return int((self.activity > ACTIVE_VARIANCE).sum())

    @property
    def active_units_se(self) -> float:
        """Monte Carlo standard error of `active_units`: each latent may be on the wrong side of the threshold."""
        distance = np.abs(self.activity - ACTIVE_VARIANCE) / np.maximum(self.activity_se, 1e-300)
        wrong = np.array([erfc(d / sqrt(2)) / 2 for d in distance.ravel()])
        return float(np.sqrt((wrong * (1 - wrong)).sum()))

    def summary(self) -> dict[str, Any]:
        """Averages over data, in nats, each with ``<key>_se``, the Monte Carlo standard error of the average.

        ``sampling_se`` holds the other error: how far the averages would move with another test set of this size
        (``None`` for a single datum).
        """
        n = len(self)
        figures: dict[str, Any] = {}
        sampling: dict[str, float | None] = {}
        for key in ("elbo", "log_px", "kl", "reconstruction"):
            values, errors = getattr(self, key), getattr(self, f"{key}_se")
            figures[key] = float(values.mean())
            figures[f"{key}_se"] = float(np.sqrt((errors**2).sum()) / n)
            sampling[key] = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        to_bits = float(1 / (log(2) * self.num_elements.mean()))
        figures["bits_per_dim"] = -figures["log_px"] * to_bits
        figures["bits_per_dim_se"] = figures["log_px_se"] * to_bits
        moved = sampling["log_px"]
        sampling["bits_per_dim"] = None if moved is None else moved * to_bits
        figures["active_units"] = self.active_units
        figures["active_units_se"] = self.active_units_se
        figures["num_samples"] = self.num_samples
        figures["n"] = n
        figures["sampling_se"] = sampling
        return figures


def blocks(num_data: int, num_samples: int, elements: int) -> tuple[int, int]:
    """Data to draw latents for at once, and particles of them to score at once.

    The first bounds data times ``num_samples``, the second data times particles times ``elements`` (`numbers_held`).
    Blocks are as equal as they can be, so that a compiled pass fits nearly all of them.
    """
    data = min(num_data, max(_DRAWS_AT_ONCE // num_samples, 1), max(ELEMENTS_AT_ONCE // max(elements, 1), 1))
    data = ceil(num_data / ceil(num_data / data))
    particles = min(num_samples, max(ELEMENTS_AT_ONCE // (max(elements, 1) * data), 1))
    return data, ceil(num_samples / ceil(num_samples / particles))


@torch.no_grad()
def evaluate(
    pair: VAE | tuple[Program, Program],
    x: Split | Tensor | np.ndarray[Any, Any],
    *,
    num_samples: int = 1000,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> Evaluation:
    """Estimate ELBO, log p(x), KL, reconstruction and active units on held-out data.

    Streams over data and particles; memory does not grow with either.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_samples: draws for each datum, at least 2.
        seed: of the draws. The same seed and sizes give the same draws, so that runs can be compared.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given; all densities are conditional on them.

    Returns:
        Estimates for each datum.

    Raises:
        ValueError: fewer than 2 draws, or data outside the support of the likelihood.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2 for a standard error, got {num_samples}")
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    if isinstance(pair, VAE):
        pair.check_data(split)
    model, guide = (pair.model, pair.guide) if isinstance(pair, VAE) else pair
    device, dtype = place_of(pair, split.head)
    elements = prod(split.x_shape)
    held = numbers_held(pair, split)
    observed = torch.full((len(split),), elements) if split.mask is None else split.mask.flatten(1).sum(1).cpu()

    # Filled in place: parts that are kept between blocks would hold the heap open, which then grows with their number.
    figures: dict[str, np.ndarray[Any, Any]] = {}
    done = 0
    with isolated(derive_seed(seed, 1)):
        for moments in _stream(model, guide, split.to(device), num_samples, held, dtype):
            found: dict[str, Tensor] = {}
            for key in ("elbo", "kl", "reconstruction"):
                found[key], found[f"{key}_se"] = moments.term(key)
            found["log_px"], found["log_px_se"] = moments.log_evidence()
            found["effective_sample_size"] = moments.effective_sample_size()
            latents = [moments.latent(name) for name in moments.latent_names]
            none = torch.empty(len(found["elbo"]), 0, dtype=torch.float64)
            found["mean"] = torch.cat([none, *(mean.reshape(len(mean), -1) for mean, _ in latents)], 1)
            found["variance"] = torch.cat([none, *(spread.reshape(len(spread), -1) for _, spread in latents)], 1)
            for key, value in found.items():
                if key not in figures:
                    figures[key] = np.empty((len(split), *value.shape[1:]), value.numpy().dtype)
                figures[key][done : done + len(value)] = value
            done += len(found["elbo"])
    activity, activity_se = activity_of(figures.pop("mean"), figures.pop("variance"), num_samples)
    return Evaluation(
        **figures,
        activity=activity,
        activity_se=activity_se,
        num_elements=observed.numpy(),
        num_samples=num_samples,
        discrete=pair.model.likelihood.discrete if isinstance(pair, VAE) else None,
    )


def place_of(pair: VAE | tuple[Program, Program], values: Tensor) -> tuple[torch.device, torch.dtype]:
    """Device and floating-point type of a pair's parameters; those of the data (`Split.head`) where it has none."""
    for program in [pair] if isinstance(pair, VAE) else list(pair):
        if isinstance(program, nn.Module):
            for parameter in program.parameters():
                return parameter.device, parameter.dtype
    return values.device, values.dtype if values.dtype.is_floating_point else torch.get_default_dtype()


def numbers_held(pair: VAE | tuple[Program, Program], split: Split) -> int:
    """Numbers that the widest tensor of a pass holds for each particle and datum."""
    widths = [prod(split.x_shape)]
    if isinstance(pair, VAE):
        # With noise on a signal of levels, x is scored at each of them.
        levels = getattr(pair.model.likelihood, "num_levels", None) or 1
        widths.append(prod(pair.config.x_shape) * max(pair.model.likelihood.num_params, levels))
        widths += [layer.out_features for layer in pair.model.decoder.modules() if isinstance(layer, nn.Linear)]
        widths.append(pair.config.prior.options.get("components", 1) * pair.config.latent_dim)
    return max(widths)


def _stream(
    model: Program, guide: Program, split: Split, num_samples: int, held: int, dtype: torch.dtype
) -> Iterator[LedgerMoments]:
    """Moments of the ledger of each block of data: the guide draws all particles, the model scores some at a time."""
    data, particles = blocks(len(split), num_samples, held)
    scorer = Scorer(model, len(split) * num_samples * held)
    for start in range(0, len(split), data):
        x, given = split.batch(slice(start, start + data), dtype)
        latents, log_guide, kinds = draw_sites(guide, x, num_particles=num_samples, **given)
        moments = LedgerMoments(len(x))
        for done in range(0, num_samples, particles):
            some = {name: value[done : done + particles] for name, value in latents.items()}
            log_likelihood, log_prior = scorer(x, given, some)
            units = {name: value for name, value in some.items() if kinds[name] == "code"}
            moments.update(Ledger(log_likelihood, log_prior, log_guide[done : done + particles], units))
        yield moments


class Scorer:
    """`vae_pyro.densities.log_densities.score_latents` of one model, compiled for the first shape where that pays.

    Args:
        model: Pyro model that keeps the contract of `vae_pyro.densities.log_densities`.
        elements: numbers that all calls together will hold, draws times data times `numbers_held`.
    """

    def __init__(self, model: Program, elements: int) -> None:
        compiled = elements >= _WORTH_COMPILING
        self.model, self.wanted = model, compiled
        self.shape: Any = None
        self.run: Any = None
        self.constants: list[Tensor] = []

    def __call__(self, x: Tensor, given: Given, latents: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        beside, names = list(given), list(latents)
        tensors = [x, *given.values(), *(latents[name].contiguous() for name in names)]

        def score(*flat: Tensor) -> tuple[Tensor, Tensor]:
            first = 1 + len(beside)
            at = dict(zip(names, flat[first:], strict=True))
            return score_latents(self.model, flat[0], at, **dict(zip(beside, flat[1:first], strict=True)))

        if self.wanted:
            self.wanted = False
            self._compile(score, tensors)
        if self.run is not None and [tensor.shape for tensor in tensors] == self.shape:
            log_likelihood, log_prior = self.run([*tensors, *self.constants])
            return log_likelihood, log_prior
        return score(*tensors)

    def _compile(self, score: Any, tensors: list[Tensor]) -> None:
        try:
            graph = capture_function(score, tensors)
            run = inductor(graph.module)
            ours = run([*tensors, *graph.constants])
        except (CaptureError, CompileError):
            return  # the programs as they are give the same numbers, later
        if disagreement(list(ours), list(score(*tensors))) is None:
            self.run, self.constants, self.shape = run, graph.constants, [tensor.shape for tensor in tensors]


def activity_of(mean: Any, variance: Any, num_samples: int) -> tuple[Any, Any]:
    """Variance over data of the posterior mean of each latent, and its Monte Carlo standard error, each ``(latent,)``.

    Args:
        mean: estimates of the posterior means, ``(datum, latent)``.
        variance: of the draws that each is the mean of, likewise; 0 where the mean is exact.
        num_samples: draws for each datum.
    """
    # A posterior mean estimated from K draws carries noise v / K, which adds to its variance over data and is taken
    # off again; the error is that of the variance of a noisy sample to first order, plus that of the noise's own.
    noise = variance / num_samples
    n = len(mean)
    centred = mean - mean.mean(0)
    activity = (centred**2).sum(0) / max(n - 1, 1) - noise.mean(0)
    error = np.sqrt(4 * (centred**2 * noise).sum(0) + 2 * (noise**2).sum(0)) / max(n - 1, 1)
    return np.maximum(activity, 0.0), error
