"""Draws of posteriors by each method, against closed forms."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis import posterior_draws
from analysis.posterior.annealing import AnnealingConfig
from analysis.posterior.local_guides import LocalConfig
from analysis.posterior.refinement.block import systematic
from tests.truths import example
from vae_pyro.core.isolation import seeded


@pytest.mark.parametrize("method", ["importance", "local", pytest.param("annealed", marks=pytest.mark.slow)])
def test_draws_of_a_wrong_guide_are_mended(method: Any) -> None:
    truth = example()
    x = truth.sample(6, seed=1)
    tree = posterior_draws(
        truth.programs(stretch=1.4),
        x,
        method=method,
        num_draws=400,
        local=LocalConfig(num_steps=60),
        annealing=AnnealingConfig(num_chains=20, num_temperatures=30),
    )
    z = tree["posterior"]["z"].stack(sample=("chain", "draw")).transpose("datum", "latent", "sample").to_numpy()
    loc, covariance = (value.numpy() for value in truth.posterior(x))
    found = tree["posterior_diagnostics"]
    assert bool(found["reliable"].all())
    size = found["effective_sample_size"].to_numpy().clip(max=400)[:, None]
    sd = np.sqrt(np.diag(covariance))
    # 12 means and 12 standard deviations, each a z-score: above 4.5 once in 6,000 tests.
    assert (np.abs(z.mean(-1) - loc) / sd * np.sqrt(size)).max() < 4.5
    assert (np.abs(z.std(-1) / sd - 1) * np.sqrt(2 * size)).max() < 4.5
    error = found["log_px_se"].to_numpy()  # itself estimated, of annealing from 20 chains
    assert (np.abs(found["log_px"].to_numpy() - truth.log_evidence(x).numpy()) < 6 * error + 1e-6).all()
    assert tree["sample_stats"]["lp"].dims == ("chain", "draw", "datum")
    assert tree["posterior"].sizes["datum"] == 6


def test_the_guide_is_taken_as_it_is_and_a_seed_repeats() -> None:
    truth = example()
    x = truth.sample(4, seed=1)
    with pytest.warns(
        UserWarning, match="the draws of 4 of 4 data are not reliable by method='guide'.*refit the guide"
    ):
        tree = posterior_draws(truth.programs(stretch=0.3), x, method="guide", num_draws=800, seed=3)
    _, covariance = truth.posterior(x)
    sd = tree["posterior"]["z"].std(("chain", "draw")).to_numpy()
    assert sd / (0.3 * covariance.diagonal().sqrt().numpy()) == pytest.approx(np.ones((4, 2)), abs=0.12)
    assert (tree["posterior_diagnostics"]["pareto_k"] > 0.7).all()
    again = [posterior_draws(truth.programs(), x, num_draws=50, seed=5)["posterior"]["z"] for _ in range(2)]
    assert again[0].equals(again[1])


def two_modes(x: Any = None, *, size: Any = None) -> Tensor:
    one = torch.ones((), dtype=torch.float64)
    with pyro.plate("data", size if x is None else len(x)):
        z = pyro.sample("z", dist.Normal(0 * one, one))
        return pyro.sample("x", dist.Normal(z.abs()[..., None], 0.2 * one).to_event(1), obs=x)


def one_mode(x: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(x[:, 0] / 1.04, 0.2 / 1.04**0.5))


def test_annealing_finds_the_mode_that_the_guide_lacks() -> None:
    with seeded(0):
        x = 1 + 0.2 * torch.randn(8, 1, dtype=torch.float64)
    config = AnnealingConfig(num_chains=40, num_temperatures=50)
    with pytest.warns(UserWarning, match="not reliable by method='annealed'"):  # chains stay in their mode
        tree = posterior_draws(
            (two_modes, one_mode), x, method="annealed", num_draws=80, local=LocalConfig(num_steps=60), annealing=config
        )
    share = float((tree["posterior"]["z"] < 0).mean())
    # Half of 320 chains, of which the other half began in one mode: weights of 0 or 2 log 2 apart, error below 0.06.
    assert share == pytest.approx(0.5, abs=0.2)
    evidence = np.log(2) + dist.Normal(0.0, 1.04**0.5).log_prob(x[:, 0]).numpy()
    assert tree["posterior_diagnostics"]["log_px"].to_numpy() == pytest.approx(evidence, abs=0.7)
    held = posterior_draws((two_modes, one_mode), x, method="importance", num_draws=80)
    assert float((held["posterior"]["z"] < 0).mean()) < 0.01  # which no weight of the guide's own draws can see


def test_systematic_resampling_is_in_proportion() -> None:
    log_weight = np.log(np.array([[0.1, 0.5], [0.6, 0.25], [0.3, 0.25]]))
    chosen = systematic(log_weight, 1000, np.random.default_rng(0))
    for datum in range(2):
        counts = np.bincount(chosen[:, datum], minlength=3)
        assert np.abs(counts - 1000 * np.exp(log_weight[:, datum])).max() <= 1


def test_refusals() -> None:
    truth = example()
    x = truth.sample(3, seed=0)
    with pytest.raises(ValueError, match="unknown method 'exact'; choose from guide, importance, local, annealed"):
        posterior_draws(truth.programs(), x, method="exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        posterior_draws(truth.programs(), x, num_draws=0)
    with pytest.raises(ValueError, match="num_proposals must be at least num_draws=50 and 25, got 30"):
        posterior_draws(truth.programs(), x, num_draws=50, num_proposals=30)
