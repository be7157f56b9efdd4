"""`denoise`: the posterior of the clean signal behind noisy data, for a VAE with a noise model.

``p(x_clean | x) = E[p(x_clean | z, x) | x]``: latents are drawn from the guide and weighted by importance, and
given each of them the distribution of the clean signal is exact (`vae_pyro.likelihoods.noise`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.applications.denoising_result import Denoised
from vae_pyro.core.isolation import RandomStream, derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.moments import WeightSums
from vae_pyro.densities.walk import Block as LatentBlock
from vae_pyro.densities.walk import bind, pieces, take
from vae_pyro.likelihoods.noise import Noise
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]

# Numbers, draws times data times the widest tensor of a pass, that are held at once.
_NUMBERS_AT_ONCE = 4_000_000
_RESAMPLING_STREAM = 2


@dataclass(frozen=True, eq=False)
class Block:
    """Posterior moments and draws of consecutive data, on the device of the VAE.

    Attributes:
        rows: which data.
        mean: posterior mean, ``(datum, *x_shape)``, float64.
        variance: posterior variance, likewise.
        mean_se: Monte Carlo standard error of ``mean``, likewise.
        effective_sample_size: shape ``(datum,)``.
        draws: draws of the posterior in random order, ``(draw, datum, *x_shape)``. Some share their latents, where
            these weigh much; none shares the draw of the clean signal given them.
    """

    rows: slice
    mean: Tensor
    variance: Tensor
    mean_se: Tensor
    effective_sample_size: Tensor
    draws: Tensor


@torch.no_grad()
def denoise(
    vae: VAE,
    x: Split | Tensor | Array,
    *,
    mask: Tensor | None = None,
    num_draws: int = 500,
    level: float = 0.9,
    keep_draws: int = 0,
    seed: int = 0,
    each: Callable[[Block], None] | None = None,
) -> Denoised:
    """Infer the clean signal behind noisy data, with its uncertainty.

    The intervals are central; their ends are order statistics of draws, placed so that the next draw of the posterior
    falls between them with the probability ``level``. Memory grows with what is returned alone.

    Args:
        vae: with a stated noise, ``VAEConfig(noise=...)``.
        x: noisy data, ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        mask: boolean, shape of ``x``, true where observed; elsewhere the clean signal is inferred from the others.
        num_draws: draws of z for each datum, and of the clean signal.
        level: probability of the intervals.
        keep_draws: draws of the posterior that are returned.
        seed: of the draws.
        each: called with each block, for statistics that require all draws.

    Returns:
        Mean, standard deviation and interval of each element, with Monte Carlo errors.

    Raises:
        ValueError: a VAE without noise, data that its noise does not make, a level outside (0, 1), too few draws for
            it, or more draws to keep than there are.

    References:
        Owen 2013, Monte Carlo theory, methods and examples, ch. 9, sec. 2 (self-normalised importance sampling and
        the variance of its estimates).
    """
    positions = _positions(level, num_draws)
    if not 0 <= keep_draws <= num_draws:
        raise ValueError(f"keep_draws is between 0 and num_draws = {num_draws}, got {keep_draws}")
    split = as_split(x, mask).fixed(derive_seed(seed, 0))
    noise = noise_of(vae)
    rounded = noise.signal.discrete and not noise.deterministic
    shape = (len(split), *split.x_shape)
    kind = torch.empty(0, dtype=vae.dtype).numpy().dtype
    found = {name: np.empty(shape, kind) for name in ("mean", "sd", "lower", "upper", "mean_se")}
    sizes = np.empty(len(split))
    kept = np.empty((keep_draws, *shape), kind) if keep_draws else None
    for block in posterior_blocks(vae, split, num_draws=num_draws, seed=seed):
        ordered = block.draws.sort(0).values
        ends = (_order_statistic(ordered, position, rounded) for position in positions)
        moments = (block.mean, block.variance.sqrt(), *ends, block.mean_se)
        for name, value in zip(("mean", "sd", "lower", "upper", "mean_se"), moments, strict=True):
            found[name][block.rows] = value.cpu().numpy()
        sizes[block.rows] = block.effective_sample_size.cpu().numpy()
        if kept is not None:
            kept[:, block.rows] = block.draws[:keep_draws].cpu().numpy()
        if each is not None:
            each(block)
    return Denoised(
        **found, effective_sample_size=sizes, draws=kept, level=level, num_draws=num_draws, ids=split.ids.cpu().numpy()
    )


@torch.no_grad()
def posterior_blocks(
    vae: VAE, x: Split | Tensor | Array, *, mask: Tensor | None = None, num_draws: int = 500, seed: int = 0
) -> Iterator[Block]:
    """Posterior of the clean signal, block after block of data, in memory that does not grow with their number.

    Args:
        vae: see `denoise`.
        x: see `denoise`; a split whose observations are random is to be fixed.
        mask: see `denoise`.
        num_draws: see `denoise`.
        seed: of the draws. The same seed and sizes give the same draws.

    Yields:
        Moments and draws of consecutive data.

    Raises:
        ValueError: see `denoise`.
    """
    noise = noise_of(vae)
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2, got {num_draws}")
    data = bind(vae, x, mask=mask, seed=seed)
    size = max(_NUMBERS_AT_ONCE // (num_draws * data.width), 1)
    # Apart from the latents' own stream, so that what a caller draws between blocks changes nothing.
    stream = RandomStream(derive_seed(seed, _RESAMPLING_STREAM))
    for drawn in data.walk(num_draws, seed=seed):
        densities = drawn.log_densities()
        log_weight = densities.log_joint - densities.log_guide
        for some in pieces(len(drawn), size):
            with stream.active():
                block = _posterior(vae, noise, drawn, some, log_weight[:, some].to(drawn.x.device))
            yield block


def noise_of(vae: VAE) -> Noise:
    """The noise of a VAE.

    Raises:
        ValueError: it states none.
    """
    likelihood = vae.model.likelihood
    if isinstance(likelihood, Noise):
        return likelihood
    raise ValueError(
        f"the VAE with likelihood {vae.config.likelihood.name!r} states no noise, so that its data count as clean; fit "
        "one with VAEConfig(noise='gaussian:scale=0.1'), or --set noise=gaussian:scale=0.1"
    )


def _posterior(vae: VAE, noise: Noise, drawn: LatentBlock, some: slice, log_weight: Tensor) -> Block:
    x, latents = drawn.x[some], take(drawn.latents, slice(None), some)
    given = {name: value[some] for name, value in drawn.given.items()}
    weight = log_weight.softmax(0)
    output = vae.model.output(latents["z"], latents.get("y", given.get("y")))
    mask = given.get("mask")
    conditional = noise.clean(output, x, mask)
    mean_given, variance_given = conditional.mean.double(), conditional.variance.double()
    of_event = weight.reshape(*weight.shape, *[1] * len(noise.x_shape))
    mean = (of_event * mean_given).sum(0)
    off = (mean_given - mean) ** 2
    chosen = _resampled(weight)
    again = noise.clean(output[chosen, torch.arange(len(x), device=x.device)], x, mask)
    return Block(
        rows=slice(drawn.rows.start + some.start, drawn.rows.start + some.stop),
        mean=mean,
        variance=(of_event * (variance_given + off)).sum(0),
        mean_se=(of_event**2 * off).sum(0).sqrt(),
        effective_sample_size=WeightSums.of(log_weight).effective_sample_size(),
        draws=again.sample(),
    )


def _resampled(weight: Tensor) -> Tensor:
    """Systematic resampling: as many particles of each datum as there are, in proportion to their weights.

    Args:
        weight: normalised, ``(particle, datum)``.

    Returns:
        Indices of particles in random order, same shape.

    References:
        Douc, Cappé & Moulines 2005, Comparison of resampling schemes for particle filtering, sec. 2.4.
        arXiv:cs/0507025
    """
    num_particles, num_data = weight.shape
    uniform = torch.rand(num_data, 1, dtype=weight.dtype, device=weight.device)
    steps = torch.arange(num_particles, dtype=weight.dtype, device=weight.device)
    points = (steps + uniform) / num_particles
    index = torch.searchsorted(weight.T.contiguous().cumsum(1), points).clamp(max=num_particles - 1).T
    order = torch.rand(weight.shape, device=weight.device).argsort(0)
    return index.gather(0, order)


def _positions(level: float, num_draws: int) -> tuple[float, float]:
    """Places of the ends among the ordered draws, counted from 0: the next draw lies between them with the level.

    A draw that is exchangeable with R others has each of the R + 1 ranks with the same probability.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.9 is usual")
    tail = (1 - level) / 2
    lower, upper = tail * (num_draws + 1) - 1, (1 - tail) * (num_draws + 1) - 1
    if lower < -1e-9:
        raise ValueError(
            f"an interval of level {level:g} requires num_draws of at least {ceil(1 / tail - 1 - 1e-9)}, got "
            f"{num_draws}"
        )
    return max(lower, 0.0), min(upper, num_draws - 1.0)


def _order_statistic(ordered: Tensor, position: float, rounded: bool) -> Tensor:
    """The draw at a place between draws, by interpolation; of levels the outer of the two, which is a level."""
    below, above = floor(position), ceil(position)
    if rounded:
        return ordered[below] if position < len(ordered) / 2 else ordered[above]
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
