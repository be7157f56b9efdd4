"""Draws beside new data: observations of the prior predictive, stored as the data are, and what is kept of the old."""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from analysis.density.elpd import elpd_of
from tests.vae_pyro.training.fits import SMALL, bits, short
from vae_pyro import VAE, Dataset, Split, VAEConfig, fit, load_data
from vae_pyro.core.isolation import isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.training.rehearsal import rehearsal
from vae_pyro.training.warm_start import (
    initialize_from,
)


def _initialized(x: Any, **options: Any) -> VAE:
    """A VAE that has seen data and was not trained: what it draws is what it draws."""
    split = as_split(x)
    vae = VAE(VAEConfig(x_shape=split.x_shape, latent_dim=2, encoder=SMALL, **options), seed=1)
    with isolated(0):
        batch, given = split.batch(slice(None))
    vae.initialize(batch, given.get("mask"), step=split.summary().step)
    return vae


def _observed(split: Split) -> Tensor:
    with isolated(0):
        return split.batch(slice(None))[0]


def test_grey_images_keep_expectations_and_are_drawn_anew(data: Dataset, old: tuple[VAE, Path]) -> None:
    """Observations of draws are those of the prior predictive: the mean of each pixel, and of products of pixels with
    their neighbours, agree with `VAE.sample` within 4.5 standard errors; 1 of 1,000 seeds has one of 120 outside."""
    vae, new = old[0], data.train
    mixed = rehearsal(vae, new, share=0.75, seed=3)
    draws = mixed.take(slice(len(new), None))
    assert mixed.values.dtype == new.values.dtype
    assert (mixed.top, mixed.draw, mixed.space) == (new.top, new.draw, new.space)
    assert len(draws) == 3 * len(new)
    assert torch.equal(mixed.values[: len(new)], new.values)
    assert len(draws.values.unique()) > 2  # intensities, not bits
    x, z = _observed(draws).flatten(1), vae.sample(len(draws), seed=11).flatten(1)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    for one, two in ((x, z), (x[:, 1:] * x[:, :-1], z[:, 1:] * z[:, :-1])):
        rate = (one.mean(0) + two.mean(0)) / 2
        error = (2 * rate * (1 - rate) / len(draws) + 1e-6).sqrt()
        assert ((one.mean(0) - two.mean(0)).abs() / error).max() < 4.5
    with isolated(1):
        again = draws.batch(slice(None))[0].flatten(1)
    assert 0.05 < float((again != x).float().mean()) < 0.5


def test_bits_that_are_binarised_anew_keep_the_noise_of_the_likelihood(data: Dataset, old: tuple[VAE, Path]) -> None:
    """Bytes of 0 and 1 have no levels for E[x | z]: observations of draws have mean and variance of the prior
    predictive, which rounded expectations have not (their mean pixel variance is a tenth). As above, 4.5 errors."""
    bits = replace(data.train, values=data.train.fixed(0).values, top=1.0)
    assert (bits.draw, bits.values.dtype) == ("binarize", torch.uint8)
    mixed = rehearsal(old[0], bits, share=0.75, seed=3)
    assert mixed.values.dtype == torch.uint8
    x, z = _observed(mixed.take(slice(len(bits), None))).flatten(1), old[0].sample(3000, seed=11).flatten(1)
    rate = (x.mean(0) + z.mean(0)) / 2
    error = (rate * (1 - rate) * (1 / len(x) + 1 / len(z)) + 1e-6).sqrt()
    assert ((x.mean(0) - z.mean(0)).abs() / error).max() < 4.5
    assert float(x.var(0).mean()) == pytest.approx(float(z.var(0).mean()), rel=0.03)


def test_few_levels_keep_the_mean_of_expectations(data: Dataset, old: tuple[VAE, Path]) -> None:
    """Of three levels the nearest would be off by up to a quarter of the range; 4.5 standard errors of 64 means."""
    levels = replace(data.train, values=(data.train.values / 16 * 3).round().to(torch.uint8), top=3.0)
    mixed = rehearsal(old[0], levels, share=0.75, seed=3)
    kept = (mixed.values[len(levels) :].double() / 3).flatten(1)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    z = old[0].sample(3000, seed=11, expectation=True).double().flatten(1)
    error = (kept.var(0) / len(kept) + z.var(0) / len(z) + 1e-7).sqrt()
    assert ((kept.mean(0) - z.mean(0)).abs() / error).max() < 4.5


def test_bits_are_drawn_once(data: Dataset, old: tuple[VAE, Path]) -> None:
    new = data.train.fixed(0)
    mixed = rehearsal(old[0], new, share=0.5, seed=3)
    assert mixed.values.dtype == torch.uint8
    assert set(mixed.values[len(new) :].unique().tolist()) == {0, 1}
    assert mixed.draw == "none"


def test_real_data_keep_the_noise_of_the_likelihood() -> None:
    """Scale 2 and nearly constant expectations: the variance of draws is 4, known to 2 / sqrt(4,000) of it, 4 times."""
    x = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    vae = _initialized(x, likelihood="gaussian:scale=2")
    mixed = rehearsal(vae, as_split(x), share=0.5, seed=0)
    assert mixed.values.dtype == torch.float32
    draws = mixed.values[2000:]
    between = vae.sample(2000, seed=1, expectation=True).var(0)
    expected = 4 + between
    assert ((draws.var(0) - expected).abs() < 4 * expected * sqrt(2 / 2000)).all()
    assert between.max() < 2


def test_bytes_become_numbers_where_draws_are_not_bytes(data: Dataset) -> None:
    new = replace(data.train, draw="none")
    vae = _initialized(new, likelihood="gaussian:scale=0.3")
    mixed = rehearsal(vae, new, share=0.5, seed=0)
    assert (mixed.values.dtype, mixed.top) == (torch.float32, None)
    assert torch.equal(_observed(mixed)[: len(new)], _observed(new))
    assert float(mixed.values[len(new) :].min()) < 0


def test_counts_stay_integers_and_take_a_wider_type_where_they_must() -> None:
    x = torch.full((200, 3), 250, dtype=torch.uint8)
    mixed = rehearsal(_initialized(x, likelihood="poisson"), as_split(x), share=0.5, seed=0)
    assert mixed.values.dtype == torch.int64
    assert int(mixed.values.max()) > 255
    few = torch.randint(0, 4, (200, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mixed = rehearsal(_initialized(few, likelihood="categorical:num_classes=4"), as_split(few), share=0.5, seed=0)
    assert mixed.values.dtype == torch.uint8
    assert int(mixed.values.max()) <= 3


def test_sparse_counts_are_joined_as_dense_ones() -> None:
    x = np.random.default_rng(0).poisson(0.4, (200, 5)).astype(np.float32)
    vae = _initialized(x, likelihood="poisson")
    one, two = (rehearsal(vae, as_split(data), share=0.5, seed=0) for data in (x, sparse.csr_array(x)))
    assert two.resident
    assert torch.equal(one.stored(slice(None)), two.stored(slice(None)))
    assert torch.equal(one.ids, two.ids)


def test_dequantised_draws_are_levels(data: Dataset) -> None:
    new = load_data("digits", dequantize=True).train
    vae = _initialized(new, likelihood="gaussian:scale=0.3")
    mixed = rehearsal(vae, new, share=0.5, seed=0)
    assert mixed.values.dtype == new.values.dtype
    assert mixed.draw == "dequantize"
    levels = mixed.values[len(new) :]
    assert 0 <= int(levels.min()) <= int(levels.max()) <= 16
    expected = (((17 * vae.sample(3000, seed=9)).floor().clamp(0, 16) + 0.5) / 17).flatten(1).mean(1)
    found = _observed(mixed.take(slice(len(new), None))).flatten(1).mean(1)
    error = float((expected.var() / len(expected) + found.var() / len(found)).sqrt())
    assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=4 * error)


def test_random_bits_from_a_model_of_real_numbers_are_refused(data: Dataset) -> None:
    vae = _initialized(data.train, likelihood="gaussian")
    with pytest.raises(ValueError, match="does not draw 0 and 1; load them with binarize='static'"):
        rehearsal(vae, data.train, seed=0)


def test_labels_ids_masks_and_repeats(data: Dataset, old: tuple[VAE, Path]) -> None:
    some = data.train.take(slice(0, 50))
    mask = torch.zeros(some.values.shape, dtype=torch.bool)
    mask[::2] = True
    new = replace(some, mask=mask)
    mixed = rehearsal(old[0], new, share=0.5, num_draws=490, seed=0)
    assert len(mixed) == 1000  # ten times the new data, and as many draws
    assert torch.equal(mixed.ids[:100], torch.cat([some.ids, some.ids]))
    assert mixed.ids[500:].tolist() == list(range(-1, -501, -1))
    assert some.labels is not None
    assert mixed.labels is not None
    assert mixed.labels[:50].tolist() == some.labels.tolist()
    assert (mixed.labels[500:] == -1).all()
    assert mixed.mask is not None
    patterns = mixed.mask[500:].flatten(1).float().mean(1)
    assert set(patterns.tolist()) == {0.0, 1.0}
    assert 0.3 < float(patterns.mean()) < 0.7
    assert rehearsal(old[0], some, share=0.2, seed=0).mask is None
    assert len(rehearsal(old[0], some, share=0.2, seed=0)) == 50 + 12


def test_the_seed_decides_and_the_old_model_stays(data: Dataset, old: tuple[VAE, Path]) -> None:
    before = bits(old[0])
    one, two, other = (rehearsal(old[0], data.train, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.values, two.values)
    assert not torch.equal(one.values, other.values)
    assert bits(old[0]) == before
    longer = rehearsal(old[0], data.train, share=0.7, seed=1)  # the same draws, and more
    assert not torch.equal(longer.values[-100:], longer.values[len(data.train) : len(data.train) + 100])


def test_a_conditional_model_wants_classes(data: Dataset) -> None:
    assert data.train.labels is not None
    new = replace(data.train, y=data.train.labels.to(torch.int64))
    config = VAEConfig(x_shape=new.x_shape, latent_dim=2, encoder=SMALL, structure="conditional:num_classes=10")
    vae = VAE(config)
    vae.initialize(_observed(new))
    with pytest.raises(ValueError, match="pass rehearsal"):
        rehearsal(vae, new, seed=0)
    mixed = rehearsal(vae, new, y=torch.tensor([3, 3, 7]), seed=0)
    assert mixed.y is not None
    drawn = mixed.y[len(new) :]
    assert set(drawn.tolist()) == {3, 7}
    assert float((drawn == 3).float().mean()) == pytest.approx(2 / 3, abs=4 * sqrt(2 / 9 / len(drawn)))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_no_share_is_refused(data: Dataset, old: tuple[VAE, Path], share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        rehearsal(old[0], data.train, share=share, seed=0)


def _classes(split: Split, low: bool) -> Split:
    assert split.labels is not None
    return split.take(split.labels < 5 if low else split.labels >= 5)


@pytest.mark.slow
def test_replay_keeps_what_a_plain_warm_start_forgets() -> None:
    """Digits 0 to 4, then 5 to 9, scored on the same held-out data with the same draws: paired differences of log p(x)
    in nats. Measured: 4.0 ± 0.2 are lost on old digits by going on with new ones alone; with half of the data replayed
    3.5 ± 0.2 of these are kept, and 4.1 ± 0.2 gained on new digits. Each is 17 standard errors, and 5 are asked for."""
    data = load_data("digits", binarize="dynamic", validation_fraction=0.0, test_fraction=0.3)
    config = VAEConfig(x_shape=data.x_shape, latent_dim=6, encoder={"name": "mlp", "hidden": [64]})
    fitting = short(30, optimizer="adam:lr=4e-3")
    tests = {low: _classes(data.split("test"), low) for low in (True, False)}

    def score(vae: VAE) -> dict[bool, Any]:
        return {low: elpd_of(vae, some, num_draws=50, seed=7).pointwise for low, some in tests.items()}

    vae = fit(VAE(config), _classes(data.train, True), config=fitting, progress=False).vae
    before, new = score(vae), _classes(data.train, False)
    scores = {}
    for name, train in (("plain", new), ("replay", rehearsal(vae, new, share=0.5, seed=1))):
        begun = VAE(config, seed=1)
        initialize_from(begun, vae)
        scores[name] = score(fit(begun, train, config=fitting, seed=1, progress=False).vae)

    def difference(one: Any, two: Any) -> tuple[float, float]:
        gap = one - two
        return float(gap.mean()), float(gap.std(ddof=1) / sqrt(len(gap)))

    lost, error = difference(before[True], scores["plain"][True])
    assert lost > 5 * error  # a plain warm start forgets
    kept, error = difference(scores["replay"][True], scores["plain"][True])
    assert kept > 5 * error  # replay loses less
    assert kept > 0.5 * lost
    learnt, error = difference(scores["replay"][False], before[False])
    assert learnt > 5 * error  # and the new digits are learnt all the same
