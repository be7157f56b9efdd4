"""The walk: the same draws for everything that walks, whatever is done between blocks and however large these are."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis import elpd, elpd_of, to_datatree
from tests.truths import PPCA, example
from vae_pyro import VAE, VAEConfig, evaluate, walk
from vae_pyro.densities.pair import Pair, as_pair
from vae_pyro.densities.walk import Block, bind


@pytest.fixture
def truth() -> PPCA:
    return example()


def latents_of(blocks: Any) -> Tensor:
    return torch.cat([block.latents["z"] for block in blocks], dim=1)


def test_what_is_drawn_between_blocks_changes_no_draw(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.densities.walk._DRAWS_AT_ONCE", 30)  # three data at a time
    x = truth.sample(8, seed=0)
    quiet = latents_of(walk(truth.programs(), x, num_draws=10, seed=4))
    parts = []
    with torch.random.fork_rng():
        for block in walk(truth.programs(), x, num_draws=10, seed=4):
            parts.append(block.latents["z"])
            torch.randn(17)
            list(block.scores())
    assert len(parts) == 3
    assert torch.equal(torch.cat(parts, dim=1), quiet)
    assert not torch.equal(quiet, latents_of(walk(truth.programs(), x, num_draws=10, seed=5)))


def test_a_walk_leaves_the_callers_generator_and_store_as_they_were(truth: PPCA) -> None:
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(3)
        expected = torch.randn(4)
        torch.manual_seed(3)
        before = torch.randn(2)
        for block in walk(truth.programs(), truth.sample(5, seed=0), num_draws=3):
            block.log_densities()
        assert torch.equal(torch.cat([before, torch.randn(2)]), expected)
        assert not list(pyro.get_param_store().keys())


def test_everything_that_walks_has_the_same_draws(truth: PPCA) -> None:
    """One log p(x) in the package: `evaluate`, `elpd_of` and the tree agree to the last bit."""
    x, pair = truth.sample(30, seed=0), truth.programs(diagonal=True)
    whole = evaluate(pair, x, num_draws=50, seed=7)
    density = elpd_of(pair, x, num_draws=50, seed=7)
    for replicate in (True, False):
        tree = to_datatree(pair, x, num_draws=50, seed=7, predictive=replicate)
        np.testing.assert_array_equal(elpd(tree).pointwise, density.pointwise)
        drawn = latents_of(walk(pair, x, num_draws=50, seed=7)).numpy()
        np.testing.assert_array_equal(tree["posterior"]["z"].values[0], drawn)
    np.testing.assert_allclose(whole.log_px, density.pointwise, rtol=1e-13)
    np.testing.assert_allclose(whole.elbo, density.elbo, rtol=1e-13)


def test_scores_are_computed_once_and_in_pieces(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 6 * 5 * 4)
    model, guide = truth.programs()
    runs: list[int] = []

    def counting(x: Any = None, **rest: Any) -> Any:
        runs.append(1)
        return model(x, **rest)

    x = truth.sample(6, seed=0)
    (block,) = walk((counting, guide), x, num_draws=10)
    runs.clear()  # of the rows that the programs were tried on
    pieces = [scores.particles for scores in block.scores()]
    assert len(pieces) == 3
    assert (pieces[0].start, pieces[-1].stop) == (0, 10)
    assert len(runs) == 3
    densities = block.log_densities()
    assert len(runs) == 3
    log_weight = densities.log_likelihood + densities.log_prior - densities.log_guide
    torch.testing.assert_close(log_weight, truth.log_evidence(x).expand(10, 6))


def test_a_piece_that_was_read_in_part_is_read_on(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 6 * 5 * 4)
    (block,) = walk(truth.programs(), truth.sample(6, seed=0), num_draws=10)
    next(block.scores())
    assert [scores.particles.start for scores in block.scores()] == [0, 4, 8]


def test_hidden_values_are_zero_for_the_programs_and_nan_for_readers(truth: PPCA) -> None:
    x = truth.sample(4, seed=0)
    x[1, 2] = torch.nan
    (block,) = walk(truth.programs(), x, num_draws=2)
    assert block.x[1, 2] == 0
    assert np.isnan(block.observed()[1, 2])
    assert np.isfinite(block.observed()).sum() == x.numel() - 1


def test_latents_of_several_sites_keep_their_densities_apart() -> None:
    def model(x: Any = None, *, size: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            w = pyro.sample("w", dist.Normal(z[..., 0], 2.0))
            return pyro.sample("x", dist.Normal(w[..., None], 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.ones(2), 1.0).to_event(1))
            pyro.sample("w", dist.Normal(x[:, 0], 1.0))

    (block,) = walk((model, guide), torch.randn(3, 1, generator=torch.Generator().manual_seed(0)), num_draws=4)
    (scores,) = block.scores()
    z, w = block.latents["z"], block.latents["w"]
    torch.testing.assert_close(scores.log_prior["z"], dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
    torch.testing.assert_close(scores.log_prior["w"], dist.Normal(z[..., 0], 2.0).log_prob(w))
    whole = scores.log_densities()
    torch.testing.assert_close(whole.log_prior, scores.log_prior["z"] + scores.log_prior["w"])
    assert list(whole.latents) == ["z", "w"]


def test_wide_latents_are_drawn_for_fewer_data(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.densities.walk._LATENTS_AT_ONCE", 2 * 10 * 3)
    sizes = [len(block) for block in walk(truth.programs(), truth.sample(8, seed=0), num_draws=10)]
    assert sizes == [3, 3, 2]


def test_no_draws_are_refused(truth: PPCA) -> None:
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        walk(truth.programs(), truth.sample(3, seed=0), num_draws=0)


def test_a_tuple_is_a_pair_and_anything_else_is_refused(truth: PPCA) -> None:
    model, guide = truth.programs()
    pair = as_pair((model, guide))
    assert (pair.model, pair.guide) == (model, guide)
    assert as_pair(pair) is pair
    assert (pair.measure, pair.decodable, pair.num_classes) == (None, None, 0)
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian"))
    assert as_pair(vae) is vae
    assert isinstance(vae, Pair)
    assert vae.decodable is vae
    for wrong in (model, (model,), (model, None), "runs/m", {"model": model}):
        with pytest.raises(ValueError, match=r"pair is a VAE, a Pair, or a tuple \(model, guide\)"):
            as_pair(wrong)  # type: ignore[arg-type]


def test_data_of_another_shape_or_support_are_refused_before_a_draw() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1))
    for x in (torch.zeros(4, 2), torch.full((4, 3), 2.0)):
        with pytest.raises(ValueError):  # noqa: PT011 (the messages are those of the likelihood and the shape)
            bind(vae, x, seed=0)


def test_means_of_a_pair_are_those_of_its_guide(truth: PPCA) -> None:
    """Within 4.5 standard errors of 4,000 draws: fails by chance 1 time in 10,000."""
    x = truth.sample(6, seed=0)
    exact, covariance = truth.posterior(x)
    found = as_pair(truth.programs()).posterior_means(x, num_draws=4000, seed=1)
    assert ((found - exact).abs() < 4.5 * (covariance.diagonal() / 4000).sqrt()).all()


def test_prior_predictive_draws_repeat_themselves(truth: PPCA) -> None:
    pair = as_pair(truth.programs())
    assert torch.equal(pair.sample(7, seed=2), pair.sample(7, seed=2))
    assert pair.sample(7, seed=2).shape == (7, 5)


def test_a_block_knows_its_place(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.densities.walk._DRAWS_AT_ONCE", 30)
    blocks: list[Block] = list(walk(truth.programs(), truth.sample(7, seed=0), num_draws=10))
    assert [(block.rows.start, block.rows.stop, len(block), block.num_draws) for block in blocks] == [
        (0, 3, 3, 10),
        (3, 6, 3, 10),
        (6, 7, 1, 10),
    ]
