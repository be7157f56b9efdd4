"""`impute`: moments, intervals and draws of p(x_missing | x_observed), with Monte Carlo standard errors.

Latents are drawn from the guide given the observed elements and weighted by self-normalised importance sampling. The
value of a masked element is never read.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.applications.imputation_result import Imputation
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.core.memory import require_memory
from vae_pyro.data.split import Given, Split
from vae_pyro.densities.moments import WeightSums
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.programs.simulation import elements
from vae_pyro.densities.sites import SiteKind
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, Block, Latents, PairData, bind, pieces, take
from vae_pyro.likelihoods.table_columns import Columns

type Array = np.ndarray[Any, Any]

_PREDICTIVE_STREAM = 2
# Equally weighted draws that the ends of an interval are quantiles of: the share beyond an end at 0.9 has the standard
# error 0.007.
_PREDICTIVE_DRAWS = 1000


@torch.no_grad()
def impute(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    mask: Tensor | None = None,
    y: Any = None,
    num_draws: int = 1000,
    num_imputations: int = 0,
    level: float | None = 0.9,
    seed: int = 0,
) -> Imputation:
    """Impute unobserved elements by self-normalised importance sampling given the observed ones.

    With draws z_k of q(z | x_observed) and weights w_k = p(x_observed, z_k) / q(z_k | x_observed), normalised to sum 1,
    the mean is sum_k w_k E[x | z_k], the variance sum_k w_k (Var[x | z_k] + E[x | z_k]^2) less the mean's square, and
    the error of the mean sqrt(sum_k w_k^2 (E[x | z_k] - mean)^2). Draws take z_k with probability w_k, and then x of
    p(x | z_k). Where the model has a site ``x_missing``, its draws replace E[x | z_k], and the weights include the
    density of the mask.

    Streams over data and particles. Complete data are not evaluated.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`,
            observes x at one site, where its elements are independent given z.
        x: ``(datum, *x_shape)``; NaN is unobserved. A split whose observations are random is fixed with ``seed`` first.
        mask: boolean, shape of ``x``, true where observed.
        y: labels or conditions, passed on where given.
        num_draws: draws of z for each datum, at least 2.
        num_imputations: complete data sets to draw.
        level: share of p(x | x_observed) that an interval holds; ``None`` leaves intervals out, which saves time.
        seed: of the draws. Mean and weights do not depend on ``num_imputations`` and ``level``.

    Returns:
        Estimates in float64, or float32 where the data are floats or bytes of no more digits.

    Raises:
        ValueError: too few draws, a level outside (0, 1), data outside the support of the likelihood, elements that
            depend on each other given z, or a datum whose weights are all zero or not numbers.

    References:
        Mattei & Frellsen 2019, MIWAE: deep generative modelling and imputation of incomplete data sets, sec. 3 (single
        and multiple imputation). arXiv:1812.02633
        Owen 2013, Monte Carlo theory, methods and examples, ch. 9 (the error of a self-normalised estimate).
    """
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2, got {num_draws}")
    if num_imputations < 0:
        raise ValueError(f"num_imputations must be at least 0, got {num_imputations}")
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    split = bind(pair, x, seed=seed, mask=mask, y=y, blank=True).split
    result = _Result(split, num_imputations, level)
    if not len(result.incomplete):
        return result.imputation(split.ids, num_draws, level)
    chosen = split.take(torch.from_numpy(result.incomplete).to(split.device))
    data = bind(pair, chosen, seed=seed, check=False)
    predictive = num_imputations + (_PREDICTIVE_DRAWS if level is not None else 0)
    for block in data.walk(num_draws, seed=seed):
        weight = _weights(block, result.incomplete[block.rows])
        reader = _Reader(data, block.kinds)
        with isolated(derive_seed(seed, _PREDICTIVE_STREAM, block.rows.start)):
            result.moments(block.rows, weight, *_moments(reader, block, weight))
            if predictive:
                for some, draws in _predictive(reader, block, weight, predictive):
                    result.draws(slice(block.rows.start + some.start, block.rows.start + some.stop), draws)
    return result.imputation(split.ids, num_draws, level)


class _Result:
    """Arrays that are filled block after block; observed elements are there from the start."""

    def __init__(self, split: Split, num_imputations: int, level: float | None) -> None:
        values = split.head.dtype
        kind = np.float32 if values.itemsize < 4 or values == torch.float32 else np.float64
        x, given = split.batch(slice(None), torch.float32 if kind == np.float32 else torch.float64)
        shape = tuple(x.shape)
        seen = given["mask"].cpu().numpy() if "mask" in given else np.ones(shape, dtype=bool)
        self.mask: Array = seen
        self.mean: Array = np.where(seen, x.cpu().numpy(), np.nan).astype(kind)
        self.sd, self.mean_se = np.zeros(shape, kind), np.zeros(shape, kind)
        self.lower = self.upper = None
        if level is not None:
            self.lower, self.upper = self.mean.copy(), self.mean.copy()
            self._ends = ((1 - level) / 2, (1 + level) / 2)
        what = f"num_imputations={num_imputations:,} data sets of shape {shape}"
        require_memory(num_imputations * self.mean.nbytes, what, "draw fewer")
        self.imputations: Array = np.repeat(self.mean[None], num_imputations, 0)
        self.effective_sample_size: Array = np.full(len(split), np.nan)
        self.incomplete: Array = np.flatnonzero(~seen.reshape(len(split), -1).all(1))

    def moments(self, block: slice, weight: Tensor, mean: Tensor, sd: Tensor, error: Tensor) -> None:
        """Store the moments of a block of the incomplete data."""
        rows = self.incomplete[block]
        missing = ~self.mask[rows]
        self.effective_sample_size[rows] = WeightSums.of(weight.log()).effective_sample_size().cpu().numpy()
        for array, found in ((self.mean, mean), (self.sd, sd), (self.mean_se, error)):
            array[rows] = np.where(missing, found.cpu().numpy(), array[rows])

    def draws(self, block: slice, draws: Tensor) -> None:
        """Store draws ``(draw, datum, *x_shape)``: the first as imputations, and quantiles of the others."""
        rows = self.incomplete[block]
        missing = ~self.mask[rows]
        drawn = draws.cpu().numpy()
        count = len(self.imputations)
        self.imputations[:, rows] = np.where(missing, drawn[:count], self.imputations[:, rows])
        if self.lower is not None and self.upper is not None:
            ends = np.quantile(drawn[count:], self._ends, axis=0)
            self.lower[rows] = np.where(missing, ends[0], self.lower[rows])
            self.upper[rows] = np.where(missing, ends[1], self.upper[rows])

    def imputation(self, ids: Tensor, num_draws: int, level: float | None) -> Imputation:
        return Imputation(
            mean=self.mean,
            sd=self.sd,
            mean_se=self.mean_se,
            lower=self.lower,
            upper=self.upper,
            imputations=self.imputations,
            mask=self.mask,
            effective_sample_size=self.effective_sample_size,
            ids=ids.cpu().numpy(),
            level=level,
            num_draws=num_draws,
        )


class _Reader:
    """Conditional distributions of x given latents, under the model of a pair."""

    def __init__(self, data: PairData, kinds: dict[str, SiteKind]) -> None:
        self._pair, self._programs, self._kinds = data.pair, data.programs, kinds

    def elements(self, values: Tensor, given: Given, latents: Latents) -> TorchDistribution | Tensor:
        """p(x | z) of each element, batch shape ``(particle, datum, *x_shape)``; draws of x where these are latent."""
        missing = [name for name, kind in self._kinds.items() if kind == "data"]
        if missing:
            return latents[missing[0]]
        particles = len(next(iter(latents.values()))) if latents else 1
        found = elements(self._programs, values, latents, **given)
        while isinstance(found, torch.distributions.Independent | pyro.distributions.MaskedDistribution):
            found = found.base_dist
        if found.event_shape:
            raise ValueError(
                f"site {self._programs.data_sites[0]!r} is a {type(found).__name__} over {tuple(found.event_shape)}, "
                "whose elements depend on each other given z; imputation requires independent elements, as .to_event() "
                "declares"
            )
        return found.expand((particles, *values.shape))

    def mean(self, elements: TorchDistribution | Tensor) -> Tensor:
        """E[x | z] of each element, float64, shape ``(particle, datum, *x_shape)``."""
        return (elements if isinstance(elements, Tensor) else self._pair.expectation_of(elements)).double()


def _weights(block: Block, rows: Array) -> Tensor:
    """Normalised weights of a block, ``(particle, datum)``, float64, on the CPU."""
    densities = block.log_densities()
    log_weight = densities.log_joint - densities.log_guide
    bad = ~log_weight.amax(0).isfinite()
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} data have importance weights that are all zero or not numbers, the first is "
            f"{int(rows[int(bad.nonzero()[0])])}; the model gives their observed elements no density"
        )
    return torch.softmax(log_weight, 0)


def _moments(reader: _Reader, block: Block, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and error of the mean of every element, ``(datum, *x_shape)``, float64, on the CPU."""
    values, given, latents = block.x, block.given, block.latents
    shape = tuple(values.shape)
    spread = weight.to(values.device).reshape(*weight.shape, *(1,) * (len(shape) - 1))
    # Sums are of deviations from the mean given the particle of the largest weight, lest squares cancel.
    best = weight.argmax(0, keepdim=True).to(values.device)
    centre = reader.mean(reader.elements(values, given, {name: _gather(z, best) for name, z in latents.items()}))[0]
    sums = [torch.zeros(shape, dtype=torch.float64, device=values.device) for _ in range(5)]
    votes: dict[int | None, Tensor] = {}
    for some in pieces(len(weight), block.at_once):
        elements = reader.elements(values, given, take(latents, some))
        share = spread[some]
        for place, classes in _nominal(elements):
            cells = share if place is None else share.expand(-1, *shape)[..., place]
            chance = (cells.unsqueeze(-1) * classes.double()).sum(0)
            votes[place] = votes[place] + chance if place in votes else chance
        variance = torch.zeros_like(elements) if isinstance(elements, Tensor) else elements.variance
        # A weight that has underflowed to 0 takes part in no sum, whatever it would multiply.
        counts, square = share > 0, share**2
        deviation = torch.where(counts, reader.mean(elements) - centre, 0.0)
        spread_out = torch.where(counts, variance.double().nan_to_num(torch.inf, torch.inf) + deviation**2, 0.0)
        terms = (share * deviation, share * spread_out, square, square * deviation, square * deviation**2)
        sums = [total + term.sum(0) for total, term in zip(sums, terms, strict=True)]
    first, second, squares, linear, quadratic = sums
    mean, sd = centre + first, (second - first**2).clamp(min=0).sqrt()
    error = (quadratic - 2 * first * linear + first**2 * squares).clamp(min=0).sqrt()
    for place, chance in votes.items():
        where = (Ellipsis,) if place is None else (Ellipsis, place)
        mean[where] = chance.argmax(-1).double()
        sd[where] = error[where] = torch.nan
    return mean.cpu(), sd.cpu(), error.cpu()


def _nominal(elements: TorchDistribution | Tensor) -> Iterator[tuple[int | None, Tensor]]:
    """Probabilities of classes that are no numbers, ``(particle, datum, ..., class)``: of all elements (``None``), or
    of one column of a table. Their average over z has a most probable class; an average of classes means nothing.
    """
    if isinstance(elements, Columns):
        for part in elements.parts:
            if isinstance(part.distribution, torch.distributions.Categorical):
                for number, place in enumerate(part.places.tolist()):
                    yield place, part.distribution.probs[..., number, :]
    elif isinstance(elements, torch.distributions.Categorical) and bool(elements.mean.isnan().all()):
        yield None, elements.probs


def _predictive(reader: _Reader, block: Block, weight: Tensor, count: int) -> Iterator[tuple[slice, Tensor]]:
    """Draws of p(x | x_observed), ``(draw, datum, *x_shape)``, of a few data at a time."""
    values, given, latents = block.x, block.given, block.latents
    at_once = max(ELEMENTS_AT_ONCE // (count * max(prod(values.shape[1:]), 1)), 1)
    for some in pieces(len(values), at_once):
        index = torch.multinomial(weight[:, some].T, count, replacement=True).T.to(values.device)
        chosen = {name: _gather(value[:, some], index) for name, value in latents.items()}
        of_some = {key: value[some] for key, value in given.items()}
        particles = max(ELEMENTS_AT_ONCE // (max(block.source.width, 1) * index.shape[1]), 1)
        parts = []
        for few in pieces(count, particles):
            elements = reader.elements(values[some], of_some, take(chosen, few))
            parts.append(elements if isinstance(elements, Tensor) else elements.sample())
        yield some, torch.cat(parts).double().cpu()


def _gather(value: Tensor, index: Tensor) -> Tensor:
    """For each datum the draws ``index`` of it, from ``(particle, datum, *event)`` by ``(draw, datum)``."""
    wide = index.reshape(*index.shape, *(1,) * (value.dim() - 2)).expand(*index.shape, *value.shape[2:])
    return value.gather(0, wide)
