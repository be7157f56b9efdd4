"""One walk over data: every estimate of a pair is a reduction of its blocks.

The guide runs once for each datum, and the same seed gives the same draws to everything that walks: evaluation,
importance weights, predictive draws, posterior means, imputation. Several reductions can share one walk.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.core.isolation import RandomStream, derive_seed, isolated
from vae_pyro.core.memory import require_memory
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Given, Split, visible
from vae_pyro.densities.log_density import LogDensities
from vae_pyro.densities.pair import Pair, PairLike, as_pair
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.scorer import Scorer
from vae_pyro.densities.sites import SiteKind

type Array = np.ndarray[Any, Any]
type Latents = dict[str, Tensor]

# Numbers that one pass through the decoder holds, over particles and data: small enough for a processor's cache.
ELEMENTS_AT_ONCE = 2_000_000
# Particles times data whose latents are held at once.
_DRAWS_AT_ONCE = 500_000
# Numbers that the latents of a block hold.
_LATENTS_AT_ONCE = 50_000_000
# What a draw leaves: log p(x | z), log p(z) and log q(z | x) in float64.
_DENSITIES_BYTES = 24
_DATA_STREAM, _LATENT_STREAM = 0, 1


@dataclass(frozen=True)
class PairData:
    """A pair with data that it accepts, on its device.

    Attributes:
        pair: the model and its guide.
        programs: what was found out about them.
        split: the data, their observations fixed.
        device: of the pair's parameters.
        dtype: of the pair's parameters.
        width: numbers that the widest tensor of a pass holds for each particle and datum.
    """

    pair: Pair
    programs: Programs
    split: Split
    device: torch.device
    dtype: torch.dtype
    width: int

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, rows: slice) -> tuple[Tensor, Given]:
        """x ``(datum, *x_shape)``, with ``mask`` and ``y`` where there are such, as the programs take them.

        What is not observed is 0: programs may multiply by the mask, and 0 * NaN is NaN.
        """
        x, given = self.split.batch(rows, self.dtype)
        return (torch.where(given["mask"], x, torch.zeros_like(x)) if "mask" in given else x), given

    def observed(self, rows: slice = slice(None)) -> Array:
        """The data, ``(datum, *x_shape)``, NaN where an element is not observed."""
        array: Array = visible(*self.split.batch(rows, self.dtype)).cpu().numpy()
        return array

    def rows(self, num_draws: int = 1) -> Iterator[slice]:
        """Blocks of data for one pass of so many draws each; one where the guide is not amortized."""
        if not self.programs.amortized:
            return pieces(len(self), len(self))
        return pieces(len(self), max(ELEMENTS_AT_ONCE // (max(num_draws, 1) * self.width), 1))

    def walk(self, num_draws: int, *, seed: int) -> Iterator["Block"]:
        """Draw from the guide at each datum, a block of data after the other.

        Args:
            num_draws: draws for each datum.
            seed: of the draws; those of a datum do not depend on what is done between blocks.
        """
        require_draws(num_draws)
        stream = RandomStream(derive_seed(seed, _LATENT_STREAM))
        data, particles = block_sizes(len(self), num_draws, self.width)
        if data * num_draws * self.width > _LATENTS_AT_ONCE:  # latents may be as wide as x, and rarely are
            data = min(data, max(_LATENTS_AT_ONCE // (num_draws * self._latent_width()), 1))
        data = data if self.programs.amortized else len(self)
        scorer = Scorer(self.programs, len(self) * num_draws * self.width)
        for rows in pieces(len(self), data):
            with stream.active(), torch.no_grad():
                x, given = self.batch(rows)
                drawn = self.programs.draw(x, num_draws, **given)
            yield Block(self, rows, x, given, *drawn, at_once=particles, _scorer=scorer)

    def _latent_width(self) -> int:
        """Numbers that the latents of one particle and datum hold."""
        with isolated(0), torch.no_grad():
            x, given = self.batch(slice(0, 1))
            drawn = self.programs.draw(x, 1, **given)
        return max(sum(value.numel() for value in drawn.latents.values()), 1)


@dataclass
class Block:
    """Consecutive data of a walk, with all their draws.

    Attributes:
        source: the pair and all data.
        rows: which of the data these are.
        x: ``(datum, *x_shape)``, 0 where not observed.
        given: ``mask`` and ``y`` that the programs are given.
        latents: draws of each latent site, ``(particle, datum, *event)``.
        log_guide: log q(z | x), nats, ``(particle, datum)``.
        kinds: what each latent site is, see `vae_pyro.densities.sites.GuideDraws`.
        distributions: q of each latent site.
        at_once: particles that one pass of the model takes.
    """

    source: PairData
    rows: slice
    x: Tensor
    given: Given
    latents: Latents
    log_guide: Tensor
    kinds: dict[str, SiteKind]
    distributions: dict[str, TorchDistribution]
    at_once: int
    _scorer: Scorer = field(repr=False)
    _scored: list["Scores"] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def num_draws(self) -> int:
        """Draws for each datum."""
        return len(self.log_guide)

    def select(self, index: Tensor, rows: slice) -> "Block":
        """Some data of this block with their draws, as a block of a smaller data set; without `distributions`.

        Args:
            index: of the data, within this block.
            rows: their place in the smaller data set.
        """
        index = index.to(self.x.device)
        given = {name: value[index] for name, value in self.given.items()}
        latents = {name: value[:, index] for name, value in self.latents.items()}
        return replace(
            self,
            rows=rows,
            x=self.x[index],
            given=given,
            latents=latents,
            log_guide=self.log_guide[:, index],
            distributions={},
            _scored=[],
        )

    def scores(self) -> Iterator["Scores"]:
        """Log densities of some particles after the other; computed once, however many reductions read them."""
        done = 0
        for scored in self._scored:
            done = scored.particles.stop
            yield scored
        for particles in pieces(self.num_draws, self.at_once):
            if particles.start < done:
                continue
            with isolated(), torch.no_grad():
                some = take(self.latents, particles)
                count = particles.stop - particles.start
                log_likelihood, log_prior = self._scorer(self.x, self.given, some, count)
            self._scored.append(Scores(self, particles, log_likelihood, log_prior))
            yield self._scored[-1]

    def log_densities(self) -> LogDensities:
        """Log densities of all particles, on the CPU in float64, without latents."""
        parts = [scored.log_densities() for scored in self.scores()]
        log_likelihood, log_prior, log_guide = (
            torch.cat(column).to("cpu", torch.float64)
            for column in zip(*((part.log_likelihood, part.log_prior, part.log_guide) for part in parts), strict=True)
        )
        return LogDensities(log_likelihood, log_prior, log_guide)

    def observed(self) -> Array:
        """The data of this block, NaN where not observed."""
        array: Array = visible(self.x, self.given).cpu().numpy()
        return array


class Reducer[R](Protocol):
    """What an estimate makes of the blocks of a walk; several reducers can be fed from one walk."""

    def add(self, block: Block) -> None:
        """Add the data of a block, of which each walk gives every datum once, in order."""

    def result(self) -> R:
        """The estimate, once every block was added."""


def reduced[R](reducer: Reducer[R], blocks: Iterable[Block]) -> R:
    """What a reducer makes of all blocks of a walk."""
    for block in blocks:
        reducer.add(block)
    return reducer.result()


@dataclass(frozen=True)
class Scores:
    """Densities of the model at some particles of a block.

    Attributes:
        block: the block.
        particles: which of its particles.
        log_likelihood: log p(x | z), nats, ``(particle, datum)``.
        log_prior: log p of each latent site, nats, ``(particle, datum)``.
    """

    block: Block
    particles: slice
    log_likelihood: Tensor
    log_prior: dict[str, Tensor]

    def log_densities(self) -> LogDensities:
        """The sums over sites, with the draws of the sites that are codes."""
        log_prior = torch.zeros_like(self.log_likelihood)
        for value in self.log_prior.values():
            log_prior = log_prior + value
        codes = {name: value for name, value in self.block.latents.items() if self.block.kinds[name] == "code"}
        log_guide = self.block.log_guide[self.particles]
        return LogDensities(self.log_likelihood, log_prior, log_guide, take(codes, self.particles))


def bind(
    pair: PairLike,
    x: Any,
    *,
    seed: int,
    mask: Any = None,
    y: Any = None,
    blank: bool = False,
    check: bool = True,
) -> PairData:
    """A pair with data: shapes and support are checked, random observations fixed, all moved to the pair's device.

    Args:
        pair: a `vae_pyro.VAE`, a `Pair`, or a tuple ``(model, guide)`` of Pyro programs.
        x: ``(datum, *x_shape)``: a `vae_pyro.Split`, a tensor, an array, or a sparse matrix; NaN is not observed. A
            split whose observations are random is fixed with ``seed``.
        seed: of the observations.
        mask: boolean, shape of ``x``, true where observed.
        y: classes ``(datum,)`` that the programs are given.
        blank: take data of which nothing is observed, too.
        check: look at the support at all.

    Raises:
        ValueError: wrong shapes, data outside the support of the likelihood, or programs that have no density of a
            datum, see `Pair.programs`.
    """
    pair = as_pair(pair)
    split = as_split(x, mask, y).fixed(derive_seed(seed, _DATA_STREAM))
    if check:
        pair.check_data(split, blank=blank)
    programs = pair.programs(split)
    device, dtype = pair.place(split)
    return PairData(pair, programs, split.to(device), device, dtype, pair.width(split))


def require_draws(num_draws: int) -> None:
    """Refuse more draws than memory holds the log densities of, for a single datum.

    Raises:
        ValueError: the message names both sizes.
    """
    what = f"num_draws={num_draws:,}: log densities of the draws of one datum"
    require_memory(_DENSITIES_BYTES * num_draws, what, "lower num_draws")


def walk(
    pair: PairLike, x: Any, *, num_draws: int, seed: int = 0, mask: Any = None, y: Any = None, blank: bool = False
) -> Iterator[Block]:
    """Draws of a guide at data, block after block; the arguments are those of `bind` and `PairData.walk`.

    Raises:
        ValueError: no draws, wrong shapes, or data outside the support of the likelihood.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    return bind(pair, x, seed=seed, mask=mask, y=y, blank=blank).walk(num_draws, seed=seed)


def block_sizes(num_data: int, num_draws: int, width: int) -> tuple[int, int]:
    """Data to draw latents for at once, and particles of them to score at once.

    The first bounds data times draws, the second data times particles times ``width``. Blocks are as equal as they can
    be, so that a compiled pass fits nearly all of them.
    """
    data = min(num_data, max(_DRAWS_AT_ONCE // num_draws, 1), max(ELEMENTS_AT_ONCE // max(width, 1), 1))
    data = ceil(num_data / ceil(num_data / data))
    particles = min(num_draws, max(ELEMENTS_AT_ONCE // (max(width, 1) * data), 1))
    return data, ceil(num_draws / ceil(num_draws / particles))


def pieces(total: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size``."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def take(latents: Latents, particles: slice, rows: slice = slice(None)) -> Latents:
    """Some particles of some data of every site."""
    return {name: value[particles, rows] for name, value in latents.items()}
