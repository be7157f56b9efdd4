"""Counts given their total."""

from math import lgamma
from typing import Any

import pytest
import torch

from tests.vae_pyro.likelihoods.counts import SE, build, compositions, outputs, topics
from vae_pyro.core.isolation import seeded
from vae_pyro.likelihoods.multinomial import CountsGivenTotal, split_total


@pytest.mark.parametrize("mask", [None, [[True, False, True], [False, True, True]], [[False] * 3, [True, True, False]]])
def test_multinomial_sums_to_one_over_all_rows_of_a_total(mask: Any) -> None:
    likelihood = build("multinomial")
    output = outputs(likelihood)
    observed = torch.ones(2, 3, dtype=torch.bool) if mask is None else torch.tensor(mask)
    density = likelihood.observed(output, None if mask is None else observed.expand(5, 2, 3))
    assert density.batch_shape == (5,)
    assert density.event_shape == (2, 3)
    for total in (0, 1, 4):
        rows = compositions(total, int(observed.sum()))
        x = torch.zeros(len(rows), 2, 3, dtype=torch.float64)
        x[:, observed] = rows
        sums = density.log_prob(x.unsqueeze(1).expand(-1, 5, 2, 3)).exp().sum(0)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_multinomial_is_poisson_given_the_total() -> None:
    likelihood = build("multinomial", (3,))
    output = outputs(likelihood, 1)
    x = torch.tensor([4.0, 0.0, 3.0], dtype=torch.float64)
    rate = 5 * output[0, 0].softmax(0)
    each = torch.distributions.Poisson(rate).log_prob(x).sum()
    whole = torch.distributions.Poisson(rate.sum()).log_prob(x.sum())
    torch.testing.assert_close(likelihood.observed(output).log_prob(x)[0], each - whole)


def test_multinomial_with_a_mask_is_that_of_the_observed_elements() -> None:
    likelihood = build("multinomial", (4,))
    output = outputs(likelihood, 1).requires_grad_()
    mask = torch.tensor([True, False, True, True])
    logits = output[0, 0][mask].log_softmax(0)
    x = torch.tensor([[2.0, 5.0, 0.0, 3.0]], dtype=torch.float64)
    wanted = lgamma(6) - lgamma(3) - lgamma(4) + 2 * logits[0] + 3 * logits[2]
    found = []
    for hidden in (5.0, 1e6, float("nan")):
        x[0, 1] = hidden
        density = likelihood.observed(output, mask)
        found.append(density.log_prob(likelihood.filled(x, mask)))
        torch.testing.assert_close(density.log_prob(x), found[-1])  # whether it is replaced by the fill or not
        torch.testing.assert_close(found[-1][0], wanted)
        gradient = torch.autograd.grad(found[-1].sum(), output)[0]
        assert gradient.isfinite().all()
        assert float(gradient[0, 0, 1]) == 0
    with seeded(0):
        drawn = likelihood.observed(output, mask).sample((50,))
    assert float(drawn[..., 1].abs().sum()) == 0
    nothing = likelihood.observed(output, torch.zeros(4, dtype=torch.bool)).log_prob(x * 0)
    assert float(nothing.detach()) == 0
    assert torch.autograd.grad(nothing.sum(), output)[0].abs().sum() == 0


def test_a_total_is_split_exactly() -> None:
    with seeded(0):
        p = torch.softmax(torch.randn(3, 11, dtype=torch.float64), 1)
        p[0, 4] = 0
        p[0] /= p[0].sum()
        drawn = split_total(torch.full((30_000, 3), 40.0, dtype=torch.float64), p)
    assert bool((drawn.sum(-1) == 40).all())
    assert float(drawn[:, 0, 4].sum()) == 0
    covariance = 40 * (torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2))
    centred = drawn - 40 * p
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    error = products.std(0) / 30_000**0.5
    # 3 x 121 entries, symmetric: by chance one is beyond 5 errors with probability 1e-4.
    assert bool(((products.mean(0) - covariance).abs() <= 5 * error).all())


def test_totals_of_draws_are_those_of_the_training_data() -> None:
    x = topics().double()
    likelihood = build("multinomial", (12,))
    bias = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
    totals = x.sum(1)
    torch.testing.assert_close(likelihood.totals.mean(), totals.mean(), atol=0.5, rtol=0)
    assert float(likelihood.totals.min()) <= totals.quantile(0.01)
    assert float(likelihood.totals.max()) >= totals.quantile(0.99)
    with seeded(0):
        drawn = likelihood.observed(bias[None]).sample((5000,)).sum((-1, -2))
    se = float(likelihood.totals.std()) / 5000**0.5
    assert abs(float(drawn.mean() - likelihood.totals.mean())) < SE * se
    assert float(drawn.std()) == pytest.approx(float(totals.std()), rel=0.1)
    mean = build("multinomial:total=mean", (12,))
    mean.initialize(x, torch.ones_like(x, dtype=torch.bool))
    assert set(mean.totals.tolist()) == {float(totals.mean().round())}


def test_totals_of_rows_seen_in_part_are_those_of_whole_rows() -> None:
    x = topics(4000).double()
    with seeded(1):
        observed = torch.rand_like(x) < 0.5
    likelihood = build("multinomial", (12,))
    likelihood.initialize(x.masked_fill(~observed, float("nan")), observed)
    assert float(likelihood.totals.mean()) == pytest.approx(float(x.sum(1).mean()), rel=0.05)


def test_multinomial_sums_to_one_in_float32() -> None:
    """All 5151 rows of a total of 100 among 3 elements."""
    rows = compositions(100, 3).float()
    density = CountsGivenTotal(torch.tensor([9.0, 7.5, 8.0]), 1, torch.tensor([100.0]))
    total = float(density.log_prob(rows).double().exp().sum())
    assert total == pytest.approx(1, abs=2e-6)
