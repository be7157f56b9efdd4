"""Likelihoods of counts: normalisation, moments, starts, fits."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.nn.functional import softplus

from tests.vae_pyro.likelihoods.counts import ALL, INFLATED, NEW, SE, build, outputs, topics
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.core.isolation import seeded
from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.counts import RATE_FLOOR, bias_of_rate
from vae_pyro.likelihoods.multinomial import CountsGivenTotal
from vae_pyro.svi.compiled_svi import CompiledSVI


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
