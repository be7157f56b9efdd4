"""k-hat of tied and of nearly equal weights: judged by the effective sample size."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis.density.elpd import elpd_of
from analysis.density.plot import plot_khat
from analysis.stats.importance import effective_sample_size, unreliable
from analysis.stats.pareto_smoothing import pareto_k
from tests.truths import Program
from vae_pyro.core.isolation import seeded


def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
    """``z ~ Bernoulli(1/2)``, ``x | z ~ N(z, 1)``: p(z = 1 | x) has logit x - 1/2."""
    with pyro.plate("data", size if x is None else len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)))
        return pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)


def guide_off_by(logit: float) -> Program:
    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=x[:, 0] - 0.5 + logit))

    return guide


@pytest.fixture(scope="module")
def x() -> Tensor:
    with seeded(0):
        return (torch.rand(300) < 0.5).double()[:, None] + torch.randn(300, 1, dtype=torch.float64)


def truth(x: Tensor) -> float:
    each = torch.stack([dist.Normal(float(z), 1.0).log_prob(x[:, 0]) for z in (0, 1)])
    return float((torch.logsumexp(each, 0) - np.log(2)).mean())


@pytest.mark.parametrize("off", [0.0, 0.02, 0.5])
def test_bounded_weights_of_discrete_latents_pass(x: Tensor, off: float) -> None:
    """The estimate is within 4 errors (6e-5) of the sum over both states, or right to rounding."""
    result = elpd_of((model, guide_off_by(off)), x, num_draws=500)
    assert abs(result.elpd / 300 - truth(x)) < 4 * result.mcse / 300 + 1e-9
    assert {verdict.name: verdict.outcome for verdict in result.verdicts}["pareto_k"] == "pass"
    assert result.trusted
    assert plot_khat(result.pareto_k, result.good_k) is not None


def test_a_guide_that_misses_a_state_does_not_pass(x: Tensor) -> None:
    """With a logit off by 6 most draws are of one state, whose weight is next to nothing for most data."""
    result = elpd_of((model, guide_off_by(6.0)), x, num_draws=500)
    assert result.elpd / 300 < truth(x) - 5 * result.mcse / 300 or result.num_bad > 150
    assert {verdict.name: verdict.outcome for verdict in result.verdicts}["pareto_k"] != "pass"


def test_ties_and_nearly_equal_weights_are_judged_by_effective_draws() -> None:
    k = np.array([np.nan, np.nan, 0.9, 0.9, 0.3, 0.3, np.inf, -np.inf])
    size = np.array([100.0, 99.0, 451.0, 449.0, 451.0, 20.0, 480.0, 500.0])
    expected = [False, True, False, True, False, False, True, False]
    assert unreliable(k, size, 500).tolist() == expected
    # No tail can be fitted to so few draws: they are not ties.
    assert unreliable(np.array([np.nan, np.nan]), np.array([20.0, 25.5]), 28).tolist() == [True, False]


def test_nearly_equal_weights_of_a_heavy_tail_are_good() -> None:
    """Weights 1 + 1e-4 |t|, t Cauchy and cut at 1e3: k-hat is near 1, and the mean weight known to 1e-3; of |t| alone
    it is not."""
    rng = np.random.default_rng(0)
    tail = np.minimum(np.abs(rng.standard_t(1, size=(1000, 20))), 1e3)
    even, uneven = np.log1p(1e-4 * tail), np.log(tail)
    k, size = pareto_k(even), effective_sample_size(even)
    assert (k > 0.7).mean() > 0.5
    assert not unreliable(k, size, 1000).any()
    assert unreliable(pareto_k(uneven), effective_sample_size(uneven), 1000).mean() > 0.5
