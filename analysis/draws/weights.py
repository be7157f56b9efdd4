"""Importance weights of a pair at its data, streamed: what estimates and scores are reductions of, never kept whole."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split, visible
from vae_pyro.densities.log_densities import Program, draw_latents
from vae_pyro.evaluation.evaluation import Scorer, blocks, numbers_held, place_of
from vae_pyro.models.structures import STRUCTURES
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]
type Pair = VAE | tuple[Program, Program]
type Measure = Literal["probability", "density", "probability given the total"]


class Weighed(NamedTuple):
    """Draws of a block of data.

    Attributes:
        x: the block, ``(datum, *x_shape)``, NaN where it is not observed.
        log_likelihood: log p(x | z), nats, ``(particle, datum)``.
        log_weight: log p(x, z) - log q(z | x), likewise.
    """

    x: Array
    log_likelihood: Array
    log_weight: Array


@torch.no_grad()
def weigh[T](
    pair: Pair, x: Split | Tensor | Array, reduce: Callable[[Weighed], T], *, num_draws: int, seed: int
) -> list[T]:
    """Reduce the log weights of one block of data after another, all draws of a block at once.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        reduce: what to keep of a block. It runs between draws, and is not to draw from torch's generator.
        num_draws: draws for each datum.
        seed: of the draws, which are those of `vae_pyro.evaluate`.

    Returns:
        What ``reduce`` made of each block, in order.

    Raises:
        ValueError: wrong shapes, or data outside the support of the likelihood.
    """
    split = as_split(x).fixed(derive_seed(seed, 0))
    if isinstance(pair, VAE):
        pair.check_data(split)
    model, guide = (pair.model, pair.guide) if isinstance(pair, VAE) else pair
    device, dtype = place_of(pair, split.head)
    resident = split.to(device)
    held = numbers_held(pair, split)
    data, particles = blocks(len(split), num_draws, held)
    scorer = Scorer(model, len(split) * num_draws * held)
    kept = []
    with isolated(derive_seed(seed, 1)):
        for start in range(0, len(split), data):
            batch, given = resident.batch(slice(start, start + data), dtype)
            latents, log_guide = draw_latents(guide, batch, num_particles=num_draws, **given)
            scored = [
                scorer(batch, given, {name: z[done : done + particles] for name, z in latents.items()})
                for done in range(0, num_draws, particles)
            ]
            log_likelihood, log_prior = (
                torch.cat(parts).to("cpu", torch.float64) for parts in zip(*scored, strict=True)
            )
            log_weight = log_likelihood + log_prior - log_guide.cpu()
            seen = visible(batch, given)
            kept.append(reduce(Weighed(seen.cpu().numpy(), log_likelihood.numpy(), log_weight.numpy())))
    return kept


def measure_of(pair: Pair) -> Measure | None:
    """Whether a pair's p(x) is a probability, given the total of x or not, or a density; ``None``: it does not say."""
    if not isinstance(pair, VAE):
        return None
    likelihood = pair.model.likelihood
    if likelihood.given_total:
        return "probability given the total"
    return "probability" if likelihood.discrete else "density"


def scored_by(pair: Pair, split: Split) -> str | None:
    """What a pair's log densities of some data are of, in words; ``None``: it does not say.

    ``x`` (its observed elements), ``x given y``, ``x and y``, ``x and the mask``: see the structures of
    `vae_pyro.models.structures`.
    """
    if not isinstance(pair, VAE):
        return None
    known = 0 if split.y is None else int((split.y >= 0).sum())
    return STRUCTURES.build(pair.config.structure).scored(data=len(split), known=known)


class Fingerprint:
    """SHA-256 of observed values in single precision, whatever the blocks and the type of the model."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._any = False

    def update(self, x: Array) -> None:
        """Add the next data, NaN where they are not observed."""
        values = np.array(x, dtype="<f4", order="C")
        values[np.isnan(values)] = np.nan  # one NaN of the many
        self._digest.update(values.tobytes())
        self._any = True

    @property
    def value(self) -> str:
        """In hexadecimal; empty where nothing was added."""
        return self._digest.hexdigest() if self._any else ""
