"""Counts with excess zeros and counts given their total: normalised, drawn as they say, started at the data."""

from math import comb, lgamma
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.core.isolation import seeded
from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods import LIKELIHOODS, Likelihood
from vae_pyro.likelihoods.counts import RATE_FLOOR, bias_of_rate
from vae_pyro.likelihoods.multinomial import CountsGivenTotal, split_total
from vae_pyro.svi.compiled_svi import CompiledSVI

INFLATED = [
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
    "zero_inflated_negative_binomial:dispersion=learned",
    "zero_inflated_negative_binomial:dispersion=predicted",
]
ALL = [*INFLATED, "multinomial", "multinomial:total=mean"]
NEW = ["zero_inflated_poisson", "zero_inflated_negative_binomial", "multinomial"]
# Statistics of draws are held to so many standard errors: a failure by chance has probability 6e-5 for each.
SE = 4.0


def build(text: str, shape: tuple[int, ...] = (2, 3)) -> Likelihood:
    return LIKELIHOODS.build(LIKELIHOODS.resolve(text), shape).double()


def outputs(likelihood: Likelihood, batch: int = 5, seed: int = 1) -> Tensor:
    with seeded(seed):
        return torch.randn(batch, *likelihood.output_shape, dtype=torch.float64)


def compositions(total: int, parts: int) -> Tensor:
    """All rows of ``parts`` counts that sum to ``total``."""
    grid = torch.cartesian_prod(*[torch.arange(total + 1, dtype=torch.float64)] * parts)
    rows = grid[grid.sum(1) == total]
    assert len(rows) == comb(total + parts - 1, parts - 1)
    return rows


def topics(size: int = 400, columns: int = 12, seed: int = 3, total: float = 20.0) -> Tensor:
    """Counts of two kinds of rows, with zeros in excess."""
    with seeded(seed):
        shares = torch.softmax(2 * torch.randn(2, columns), 1)
        rate = total * shares[torch.randint(2, (size,))]
        return torch.poisson(rate) * (torch.rand(size, columns) < 0.7)


@pytest.mark.parametrize("text", INFLATED)
def test_elements_sum_to_one_and_the_gradient_flows(text: str) -> None:
    likelihood = build(text)
    output = outputs(likelihood).requires_grad_()
    points = torch.arange(20_000, dtype=torch.float64).reshape(-1, 1, 1, 1).expand(-1, 5, 2, 3)
    density = likelihood(output)
    total = density.log_prob(points).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    parameters = list(likelihood.parameters())
    for value in (0.0, 2.0):
        at = torch.full((5, 2, 3), value, dtype=torch.float64)
        for gradient in torch.autograd.grad(density.log_prob(at).sum(), [output, *parameters], retain_graph=True):
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0


@pytest.mark.parametrize("text", INFLATED)
def test_the_gate_adds_zeros_to_the_family(text: str) -> None:
    likelihood = build(text)
    output = outputs(likelihood)
    plain = text.removeprefix("zero_inflated_")
    other = build(plain)
    ungated = torch.cat([output[:, :1], output[:, 2:]], 1)
    gate = output[:, 1].sigmoid()
    family = other(ungated)
    for value in (0.0, 1.0, 7.0):
        at = torch.full((5, 2, 3), value, dtype=torch.float64)
        wanted = (gate if value == 0 else 0) + (1 - gate) * family.log_prob(at).exp()
        torch.testing.assert_close(likelihood(output).log_prob(at).exp(), wanted)
    torch.testing.assert_close(likelihood.expectation(likelihood(output)), (1 - gate) * family.mean)


@pytest.mark.parametrize("text", ALL)
def test_draws_have_the_mean_and_variance_that_they_say(text: str) -> None:
    likelihood = build(text, (4,))
    if text.startswith("multinomial"):
        likelihood.initialize(topics(columns=4).double(), torch.ones(400, 4, dtype=torch.bool))
    density = likelihood.observed(outputs(likelihood, batch=2))
    with seeded(0):
        draws = density.sample((20_000,))
    assert draws.shape == (20_000, 2, 4)
    assert torch.equal(draws, draws.round())
    base = density if isinstance(density, CountsGivenTotal) else density.base_dist
    for found, wanted in ((draws, base.mean), ((draws - base.mean) ** 2, base.variance)):
        error = found.std(0) / len(draws) ** 0.5
        assert bool(((found.mean(0) - wanted).abs() < SE * error).all())


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


@pytest.mark.parametrize("text", ALL)
def test_the_output_bias_starts_at_the_marginals_of_the_data(text: str) -> None:
    x = topics(4000).double()
    x[:, 0] = 0  # an element that never occurs
    x[:, 1] = 3  # one that is never zero
    likelihood = build(text, (12,))
    bias = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
    assert bias.shape == likelihood.output_shape
    assert bias.isfinite().all()
    start = likelihood(bias[None])
    if text.startswith("multinomial"):  # each element once more, and totals that are rounded
        torch.testing.assert_close(likelihood.expectation(start)[0], x.mean(0), atol=2e-3, rtol=0.02)
    else:  # half an event, of an element that never occurs
        wanted = x.mean(0).clamp(min=0.5 / 4000)
        torch.testing.assert_close(likelihood.expectation(start)[0], wanted, atol=0, rtol=1e-9)
    if text == "zero_inflated_poisson":
        zeros = start.log_prob(torch.zeros(1, 12, dtype=torch.float64))[0].exp()
        share = (x == 0).double().mean(0)
        inflated = share > (-x.mean(0)).exp() + 0.05  # the others have no zeros to spare
        assert int(inflated.sum()) > 5
        torch.testing.assert_close(zeros[inflated], share[inflated], atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", ["poisson", "negative_binomial", *INFLATED])
def test_sparse_counts_start_at_their_marginals(text: str) -> None:
    """Two events in a row of 20,000 columns are two at the start, and not the sum of 20,000 floors."""
    with seeded(4):
        x = (torch.rand(400, 20_000) < 1e-4).float()
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:100, :10_000] = False
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (20_000,))
    start = likelihood.expectation(likelihood(likelihood.initialize(x, observed)[None]))[0]
    number = observed.sum(0).double()
    seen = (x * observed).sum(0).double()
    torch.testing.assert_close(start.double(), torch.maximum(seen, torch.tensor(0.5)) / number, atol=0, rtol=1e-5)


def test_a_rate_at_the_floor_has_a_start() -> None:
    x = torch.zeros(3, 2)
    observed = torch.tensor([[True, False]]).expand(3, 2)
    bias = LIKELIHOODS.build(LIKELIHOODS.resolve("poisson"), (2,)).initialize(x, observed)
    torch.testing.assert_close(softplus(bias[0]), torch.tensor([0.5 / 3, 0.5]), atol=1e-5, rtol=0)
    for rate in (1e-9, 1e-6, 2e-6, 1e-3):
        found = float(softplus(bias_of_rate(torch.tensor(rate, dtype=torch.float64)))) + RATE_FLOOR
        assert found == pytest.approx(max(rate, RATE_FLOOR + rate / 2), rel=1e-9)


# --- float32 ------------------------------------------------------------------------------------------------------


def of_product(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    """Log density of a negative binomial without a difference of large terms, for counts below 40; float64."""
    k = torch.arange(40.0, dtype=torch.float64)
    ratios = torch.log1p(k / r.unsqueeze(-1)) * (k < x.unsqueeze(-1))
    return ratios.sum(-1) - torch.lgamma(x + 1) + x * m.log() - (x + r) * torch.log1p(m / r)


@pytest.mark.parametrize("dispersion", ["per_dimension", "learned", "predicted"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("r", [10.0, 1e3, 1e4, 1e6])
def test_float32_loses_no_nats_of_a_negative_binomial(dispersion: str, gated: bool, r: float) -> None:
    name = f"{'zero_inflated_' if gated else ''}negative_binomial:dispersion={dispersion}"
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(name), (784,))
    with seeded(0):
        x = torch.poisson(torch.full((20, 784), 5.0))
        output = 5 + 0.1 * torch.randn(20, *likelihood.output_shape)
    if gated:
        output[:, 1] = -2
    if isinstance(raw := likelihood.raw_dispersion, Tensor):
        raw.data.fill_(r)
    else:
        output[:, -1] = r
    output.requires_grad_()
    free = [output, *likelihood.parameters()]
    found = likelihood.observed(output).log_prob(x)

    exact = output.double()
    shape = exact[:, -1] if raw is None else raw.double()
    wanted = of_product(x.double(), softplus(exact[:, 0]) + RATE_FLOOR, (softplus(shape) + RATE_FLOOR).expand(20, 784))
    if gated:
        gate = exact[:, 1]
        wanted = wanted + logsigmoid(-gate)
        wanted = torch.where(x == 0, torch.logaddexp(logsigmoid(gate), wanted), wanted)
    wanted = wanted.sum(-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=0)
    gradients = zip(torch.autograd.grad(found.sum(), free), torch.autograd.grad(wanted.sum(), free), strict=True)
    for one, other in gradients:
        # Of r they are as small as 1 / r^2, of which the digits of digamma(r) leave some.
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()) + 1e-10, rtol=1e-4)


@pytest.mark.parametrize("text", ["negative_binomial", "zero_inflated_poisson", "multinomial"])
def test_float32_loses_no_nats_of_large_counts(text: str) -> None:
    with seeded(0):
        share = torch.softmax(2 * torch.randn(2000), 0)
        x = torch.poisson((share * 1e6).expand(10, -1))
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (2000,))
    output = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))[None]
    found = likelihood.observed(output).log_prob(x).detach()
    assert found.dtype == torch.float32
    likelihood.double()
    wanted = likelihood.observed(output.double()).log_prob(x.double()).detach()
    torch.testing.assert_close(found.double(), wanted, atol=0.01, rtol=0)  # the sum of 2000 elements is in float32


@pytest.mark.parametrize("text", ["negative_binomial", *INFLATED])
def test_float32_sums_to_one(text: str) -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (2, 3))
    if isinstance(raw := likelihood.raw_dispersion if "poisson" not in text else None, Tensor):
        raw.data.fill_(1e4)
    output = outputs(likelihood).float()
    points = torch.arange(20_000.0).reshape(-1, 1, 1, 1).expand(-1, 5, 2, 3)
    total = likelihood(output).log_prob(points).double().exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def test_multinomial_sums_to_one_in_float32() -> None:
    """All 5151 rows of a total of 100 among 3 elements."""
    rows = compositions(100, 3).float()
    density = CountsGivenTotal(torch.tensor([9.0, 7.5, 8.0]), 1, torch.tensor([100.0]))
    total = float(density.log_prob(rows).double().exp().sum())
    assert total == pytest.approx(1, abs=2e-6)


def test_the_dispersion_is_bounded_where_the_family_is_a_poisson() -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve("negative_binomial:dispersion=predicted"), (3,))
    output = torch.tensor([[[5.0, 5.0, 5.0], [1e7, 1e12, 1e30]]])
    x = torch.tensor([[0.0, 4.0, 12.0]])
    found = likelihood(output).log_prob(x)
    wanted = torch.distributions.Poisson(likelihood(output).mean).log_prob(x)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("text", ["negative_binomial", *INFLATED])
def test_draws_and_moments_have_the_type_of_the_model(text: str) -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (2, 3))
    density = likelihood(outputs(likelihood).float())
    wide = density.expand((4, 5, 2, 3))
    assert wide.batch_shape == (4, 5, 2, 3)
    with seeded(0):
        x = wide.sample((7,))
    assert x.shape == (7, 4, 5, 2, 3)
    assert {value.dtype for value in (x, wide.mean, wide.variance, wide.log_prob(x))} == {torch.float32}
    assert density.log_prob(x.double()).dtype == torch.float64
    some = torch.tensor([True, False, True])
    hidden = density.mask(some).to_event(2).log_prob(x[0, 0])
    torch.testing.assert_close(hidden, (density.log_prob(x[0, 0]) * some).sum((-1, -2)))
    with pytest.raises(ValueError, match="support"):
        density.log_prob(torch.full((5, 2, 3), 0.5))


@pytest.mark.parametrize("text", NEW)
def test_masked_elements_do_not_enter_the_start(text: str) -> None:
    x = topics().double()
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:200] = False
    likelihood = build(text, (12,))
    clean = likelihood.initialize(x, observed)
    x[:200] = float("nan")
    torch.testing.assert_close(likelihood.initialize(x, observed), clean)


@pytest.mark.parametrize("text", NEW)
@pytest.mark.parametrize("summary", [DataSummary(0.0, 1.0, False), DataSummary(-1.0, 9.0, True)])
def test_what_is_no_count_is_refused(text: str, summary: DataSummary) -> None:
    build(text).check(DataSummary(0.0, 9.0, True), text)
    with pytest.raises(ValueError, match=r"requires integer counts from 0 up, got .*choose .*gaussian"):
        build(text).check(summary, text)


@pytest.mark.parametrize("text", NEW)
@pytest.mark.parametrize("form", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_compiled_step_is_the_stock_step(text: str, form: bool) -> None:
    x = topics(64).double()
    with seeded(7):
        mask = torch.rand_like(x) < 0.8
    figures = []
    for compiled in (form, "never"):
        vae = VAE(VAEConfig(x_shape=(12,), latent_dim=2, likelihood=text, encoder="mlp:hidden=[8]")).double()
        vae.initialize(x)
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
        # A step that cannot be traced, or that disagrees with the stock step, warns, and a warning is an error here.
        svi = CompiledSVI(vae.model, vae.guide, optimizer, Trace_ELBO(), compile=compiled)
        with seeded(5), pyro.get_param_store().scope():
            losses = [float(svi.step(x, mask=mask)) for _ in range(3)]
        figures.append(torch.cat([torch.tensor(losses), *(value.detach().flatten() for value in vae.parameters())]))
    torch.testing.assert_close(*figures, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("text", NEW)
def test_a_fit_learns_and_is_evaluated_with_and_without_a_mask(text: str) -> None:
    x = topics(600, total=100.0)
    vae = VAE(VAEConfig(x_shape=(12,), latent_dim=2, likelihood=text, encoder="mlp:hidden=[16]"))
    with seeded(2):
        mask = torch.rand_like(x) < 0.8
    hidden = x.masked_fill(~mask, 0)
    config = FitConfig(epochs=15, batch_size=50, optimizer="adam:lr=0.02", compile=False)
    result = fit(vae, hidden[:500], mask=mask[:500], config=config, seed=0)
    assert result.history[-1]["elbo"] > result.history[0]["elbo"] + 0.5
    found = evaluate(vae, hidden[500:], mask=mask[500:], num_draws=50, seed=1)
    other = torch.where(mask, x, torch.full_like(x, 77.0))
    assert evaluate(vae, other[500:], mask=mask[500:], num_draws=50, seed=1).summary() == found.summary()
    whole = evaluate(vae, x[500:], num_draws=50, seed=1)
    assert whole.summary()["log_px"] < found.summary()["log_px"]
    assert vae.sample(3, seed=0).shape == (3, 12)
    assert vae.reconstruct(x[:5]).shape == (5, 12)
    assert vae.model.likelihood.discrete
