"""Draw from the prior predictive of a fitted pair, and compare with data."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.samples.generated.comparison import compare_blocks
from analysis.samples.generated.features import BLOCK
from analysis.samples.generated.result import SampleComparison
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.renamed import renamed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Given, Split, visible
from vae_pyro.densities.pair import PairLike, as_pair
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE

type Array = np.ndarray[Any, Any]


@renamed(num_neighbours="num_neighbors", max_rows="max_data")
def check_samples(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_samples: int = 2000,
    seed: int = 0,
    train: Split | Tensor | Array | None = None,
    mask: Tensor | None = None,
    y: Any = None,
    **options: Any,
) -> SampleComparison:
    """Draw from the prior predictive of a fitted pair, and compare with data.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: held-out data, ``(datum, *x_shape)``, of which ``num_samples`` at most are used, chosen at random. A split
            whose observations are random is fixed with ``seed`` first. Where elements are hidden, as many are hidden in
            each generated datum, in the pattern of some real one, and both count as the mean of what is observed.
        num_samples: data to draw, at least 20; they are drawn a block at a time.
        seed: of everything that is drawn.
        train: what the model was trained on, for the test of copying.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.
        options: see `compare_samples`.

    Raises:
        ValueError: see `compare_samples`; or a VAE of another shape.
    """
    random = np.random.default_rng(derive_seed(seed, 3))
    whole = as_split(x, mask, y)
    rows = np.sort(random.permutation(len(whole))[:num_samples])
    split = whole.take(torch.from_numpy(rows)).fixed(derive_seed(seed, 0))
    pair = as_pair(pair)
    pair.check_shape(split.head)
    known = None if train is None else as_split(train).fixed(derive_seed(seed, 2))
    if known is not None and known.x_shape != split.x_shape:
        raise ValueError(f"training data of shape {known.x_shape} and data of shape {split.x_shape} differ")
    generated = draw_samples(pair, num_samples, split, seed=derive_seed(seed, 1))
    real = observations(split, slice(None))
    mean: Array | float = 0.0
    if split.mask is not None:
        generated = hidden_alike(generated, split, random)
        count = np.isfinite(real).sum(0) + np.isfinite(generated).sum(0)
        mean = (np.nansum(real, 0) + np.nansum(generated, 0)) / np.maximum(count, 1)
        real, generated = (np.where(np.isnan(part), mean, part) for part in (real, generated))
    blocks = (
        None
        if known is None
        else (
            np.where(np.isnan(part), mean, part)
            for start in range(0, len(known), BLOCK)
            for part in [observations(known, slice(start, start + BLOCK))]
        )
    )
    max_data = options.pop("max_data", num_samples)
    result = compare_blocks(real, generated, blocks, max_data=max_data, seed=derive_seed(seed, 4), **options)
    return replace(result, real_rows=rows[result.real_rows])


@torch.no_grad()
def draw_samples(pair: PairLike, size: int, like: Split, *, seed: int) -> Array:
    """Data from the prior predictive, ``(size, *x_shape)``, drawn a block at a time.

    Args:
        pair: a `VAE`, or a Pyro ``(model, guide)``.
        size: number of data.
        like: some data, by which the width of a pass is known, and beside which others are drawn; where the programs
            are given classes, those of some of these, chosen at random.
        seed: of the draws.

    Raises:
        ValueError: fewer than one datum, or draws of another shape than the data's.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    pair = as_pair(pair)
    block = max(ELEMENTS_AT_ONCE // pair.width(like), 1)
    drawn: list[Array] = []
    for start in range(0, size, block):
        here, block_seed = min(block, size - start), derive_seed(seed, start)
        given: Given = {}
        if like.y is not None:
            chosen = np.random.default_rng(derive_seed(block_seed, 0)).integers(len(like), size=here)
            given = {"y": like.y[torch.from_numpy(chosen)].to(pair.place(like)[0])}
        drawn.append(pair.sample(here, **given, seed=block_seed, like=like).cpu().numpy())
    generated = np.concatenate(drawn)
    if generated.shape[1:] != like.x_shape:
        raise ValueError(f"the model draws data of shape {generated.shape[1:]}, the data have {like.x_shape}")
    return generated


def hidden_alike(generated: Array, split: Split, random: np.random.Generator) -> Array:
    """Generated data, NaN where elements of some real datum are hidden, chosen at random for each."""
    if split.mask is None:
        return generated
    pattern = split.mask.cpu().numpy()[random.integers(len(split), size=len(generated))]
    return np.where(pattern, generated, np.nan)


def observations(split: Split, rows: slice) -> Array:
    """Observations, NaN where hidden."""
    array: Array = visible(*split.batch(rows)).cpu().numpy()
    return array
