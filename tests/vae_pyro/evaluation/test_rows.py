"""Rows of a large data set that an estimate takes, and the error that a sample of them adds."""

import numpy as np
import pytest
import torch

from vae_pyro import VAE, Split, VAEConfig
from vae_pyro.evaluation import rows
from vae_pyro.evaluation.rows import Rows, choose_rows, sampled


@pytest.fixture(scope="module")
def split() -> Split:
    return Split(torch.randn(3000, 6, generator=torch.Generator().manual_seed(0)))


def small(**options: object) -> VAE:
    return VAE(VAEConfig(**{"x_shape": (6,), "latent_dim": 2, "likelihood": "gaussian", **options}))


def test_as_many_rows_as_their_operations_allow(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = small(encoder="mlp:hidden=[64]")
    assert str(choose_rows(vae, split, num_draws=1000)) == "all 3,000"
    # A draw is 2 (2 x 64 + 64 x 6) operations of the decoder, and a 64th of as many of the encoder, beside the rest.
    operations = 2 * (2 * 64 + 64 * 6 + (6 * 64 + 64 * 4) / 64) + 200 * 64
    monkeypatch.setattr(rows, "_OPERATIONS", {"cpu": operations * 100 * 1500})
    state = torch.get_rng_state()
    found = choose_rows(vae, split, num_draws=100, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert len(found.split) == pytest.approx(1500, rel=0.02)
    assert str(found) == f"a random sample of {len(found.split):,} of 3,000"
    again = choose_rows(vae, split, num_draws=100, seed=3)
    assert torch.equal(found.split.ids, again.split.ids)
    assert len(found.split.ids.unique()) == len(found.split)
    assert not torch.equal(choose_rows(vae, split, num_draws=100, seed=4).split.ids, found.split.ids)
    assert len(choose_rows(vae, split, num_draws=10_000).split) == 1000, "the least"
    assert len(choose_rows(vae, split, num_draws=100, beside=operations).split) == pytest.approx(1000, abs=20)
    assert str(choose_rows(vae, split, num_draws=100, limit="all")) == "all 3,000"
    first = choose_rows(vae, split, num_draws=100, limit=7)
    assert str(first) == "the first 7 of 3,000"
    assert first.split.ids.tolist() == list(range(7))


def test_the_sample_adds_the_error_of_drawing_without_replacement() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=500)
    means, errors = [], []
    for seed in range(600):
        taken = sampled(Split(torch.from_numpy(values)[:, None]), 300, seed)
        x = values[taken.split.ids.numpy()]
        means.append(x.mean() - values.mean())
        errors.append(taken.added_error(x.std(ddof=1) / 300**0.5))
    assert np.mean(means) == pytest.approx(0, abs=4 * np.std(means) / 600**0.5)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=4 / 1200**0.5)
    assert Rows(taken.split, 300, random=False).added_error(1.0) == 0
