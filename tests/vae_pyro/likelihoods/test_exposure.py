"""Counts given their total as exposure, and the densities of counts in float32."""

from math import exp
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from tests.vae_pyro.likelihoods.counts import SE, build, outputs, topics
from vae_pyro import VAE, VAEConfig, evaluate
from vae_pyro.core.isolation import seeded
from vae_pyro.densities.measure import Measure
from vae_pyro.experiments.plan import mixed_measures
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.count_densities import negative_binomial_log_prob, poisson_log_prob
from vae_pyro.likelihoods.count_distributions import CountDistribution
from vae_pyro.svi.compiled_svi import CompiledSVI

FAMILIES = ["poisson", "negative_binomial", "zero_inflated_poisson", "zero_inflated_negative_binomial"]
PREDICTED = "negative_binomial:dispersion=predicted"


def with_total(text: str) -> str:
    return f"{text}{',' if ':' in text else ':'}exposure=total"


def config(text: str, columns: int = 12) -> VAEConfig:
    return VAEConfig(x_shape=(columns,), latent_dim=2, likelihood=text, encoder="mlp:hidden=[8]")


# --- densities in float32 -------------------------------------------------------------------------------------------


def cases() -> tuple[Tensor, Tensor, Tensor]:
    """Counts that the family draws, and 1, 2 and 9, for rates of 1e-6 to 1e7 and r of 1e-6 to exp(15); float32."""
    generator = np.random.default_rng(0)
    rates = np.logspace(-6, 7, 27, dtype=np.float32)
    sizes = np.minimum(np.logspace(-6, 6.6, 16), exp(15)).astype(np.float32)
    rate, size = (a.ravel().repeat(12) for a in np.meshgrid(rates, sizes))
    drawn = generator.poisson(np.minimum(generator.gamma(size.astype(float)) * rate / size, 1e9)).clip(0, 2**24)
    drawn[::4] = np.array([0, 1, 2, 9])[np.arange(len(drawn[::4])) % 4]
    return torch.tensor(drawn, dtype=torch.float32), torch.from_numpy(rate), torch.from_numpy(size)


def bound(exact: Tensor) -> Tensor:
    return 5e-7 + 1e-6 * exact.abs()


def test_float32_densities_of_counts_are_exact_to_rounding_over_the_whole_range() -> None:
    import mpmath

    x, rate, size = cases()
    found = negative_binomial_log_prob(x, rate, size).double()
    some = torch.arange(0, len(x), 7)
    exact = torch.empty(len(some), dtype=torch.float64)
    with mpmath.workdps(40):
        for at, i in enumerate(some.tolist()):
            k, m, r = (mpmath.mpf(float(value[i])) for value in (x, rate, size))
            ways = mpmath.loggamma(k + r) - mpmath.loggamma(r) - mpmath.loggamma(k + 1)
            exact[at] = float(ways + r * mpmath.log(r / (r + m)) + k * mpmath.log(m / (r + m)))
    assert bool(((found[some] - exact).abs() < bound(exact)).all())
    stock = torch.distributions.NegativeBinomial(size, logits=rate.log() - size.log(), validate_args=False)
    assert float((stock.log_prob(x)[some].double() - exact).abs().max()) > 0.1  # what float32 loses otherwise
    exact = torch.distributions.Poisson(rate.double()).log_prob(x.double())
    assert bool(((poisson_log_prob(x, rate).double() - exact).abs() < bound(exact)).all())


def test_gradients_of_counts_are_exact() -> None:
    x, rate, size = (value[::5] for value in cases())
    keep = (size > 1e-4) & (size < 1e5) & (rate < 1e5)  # where float64 leaves digits of the reference's
    x, rate, size = x[keep], rate[keep], size[keep]
    grads = []
    for kind in (torch.float32, torch.float64):
        m, r = (value.to(kind).requires_grad_() for value in (rate, size))
        density = CountDistribution(m, r)
        plain = CountDistribution(m).log_prob(x.to(kind))
        grads.append(
            torch.autograd.grad(density.log_prob(x.to(kind)).sum(), [m, r]) + torch.autograd.grad(plain.sum(), m)
        )
    for found, exact in zip(*grads, strict=True):  # terms of the slope in r are as large as 1 / r
        assert bool(((found.double() - exact).abs() < 1e-6 * (1 + 1 / size) + 5e-6 * exact.abs()).all())
    m = torch.tensor([2.5, 0.3], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([1.5, 700.0], dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([[4.0, 0.0], [0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m, r: negative_binomial_log_prob(counts, m, r), (m, r), atol=1e-5)
    assert torch.autograd.gradcheck(lambda m: poisson_log_prob(counts, m), (m,), atol=1e-5)
    batched = torch.func.vmap(lambda m: negative_binomial_log_prob(counts, m, r))(torch.stack([m, 2 * m]))
    torch.testing.assert_close(batched[1], negative_binomial_log_prob(counts, 2 * m, r))


@pytest.mark.parametrize("text", [*FAMILIES, PREDICTED])
@pytest.mark.parametrize("exposure", [False, True])
def test_the_positive_counts_of_sparse_data_have_the_same_density_on_their_own(text: str, exposure: bool) -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(with_total(text) if exposure else text), (1500,))
    with seeded(0):
        output = torch.randn(2, 40, *likelihood.output_shape)
        x = torch.poisson(3 * torch.rand(40, 1500)) * (torch.rand(40, 1500) < 0.3)
    dense = likelihood.observed(output.requires_grad_()).log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(likelihood.observed(output).log_prob(x), dense.detach(), rtol=1e-6, atol=1e-3)


# --- the total as exposure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*FAMILIES, PREDICTED])
def test_the_density_is_that_of_rates_that_are_shares_of_the_total(text: str) -> None:
    likelihood, plain = build(with_total(text)), build(text)
    output = outputs(likelihood)
    with seeded(2):
        x = torch.poisson(4 * torch.rand(5, 2, 3, dtype=torch.float64))
        mask = torch.rand(5, 2, 3) < 0.7
    x[0] = 0
    for seen in (None, mask):
        weight = torch.ones_like(x) if seen is None else seen.double()
        shares = output[:, 0].exp() * weight / (output[:, 0].exp() * weight).sum((1, 2), keepdim=True)
        rate = (x * weight).sum((1, 2), keepdim=True) * shares + 1e-8
        elements = plain.family(output)(rate).exact  # type: ignore[attr-defined]  # of counts with a rate
        expected = (elements.log_prob(x) * weight).sum((1, 2))
        torch.testing.assert_close(likelihood.observed(output, seen).log_prob(x), expected)
    hidden = torch.where(mask, x, torch.full_like(x, float("nan")))
    torch.testing.assert_close(likelihood.observed(output, mask).log_prob(hidden), expected)


def test_poisson_counts_with_the_total_as_exposure_are_multinomial_times_the_probability_of_the_total() -> None:
    ours, given = build("poisson:exposure=total"), build("multinomial")
    output = outputs(ours)
    x = torch.tensor([[3.0, 0, 1], [4, 2, 0]], dtype=torch.float64).expand(5, 2, 3)
    total = torch.distributions.Poisson(10.0).log_prob(torch.tensor(10.0)).double()
    torch.testing.assert_close(ours.observed(output).log_prob(x), given.observed(output).log_prob(x) + total)


@pytest.mark.parametrize("text", [*FAMILIES, PREDICTED])
def test_draws_take_totals_of_the_training_data_and_have_the_moments_that_they_say(text: str) -> None:
    likelihood = build(with_total(text), (4,))
    x = topics(columns=4).double()
    bias = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
    mean = likelihood.mean_of(bias[None])[0]
    torch.testing.assert_close(mean, x.mean(0), rtol=0.03, atol=0.03)
    density: Any = likelihood.observed(outputs(likelihood, batch=2))
    with seeded(0):
        draws = density.sample((20_000,))
    for found, expected in ((draws, density.mean), ((draws - density.mean) ** 2, density.variance)):
        assert bool(((found.mean(0) - expected).abs() < SE * found.std(0) / len(draws) ** 0.5).all())
    if text == "poisson":  # the variance of a sum is that of the totals, and that of a Poisson given them
        totals = likelihood.totals
        expected = float(totals.var(unbiased=False) + totals.mean())
        assert float(draws[:, 0].sum(-1).var()) == pytest.approx(expected, rel=0.05)


def test_the_measure_names_the_exposure_and_experiments_refuse_others_beside_it() -> None:
    ours = VAE(config("poisson:exposure=total"), seed=0)
    assert ours.measure is Measure.GIVEN_EXPOSURE
    assert VAE(config("poisson"), seed=0).measure is Measure.PROBABILITY
    for other in ("poisson", "multinomial"):
        models = [("a", config(other)), ("b", config("poisson:exposure=total"))]
        assert "given the total as exposure" in str(mixed_measures(models))
    same = [("a", config("negative_binomial:exposure=total")), ("b", config("poisson:exposure=total"))]
    assert mixed_measures(same) is None


@pytest.mark.parametrize("text", ["negative_binomial"])
def test_steps_with_an_exposure_are_traced_and_learn(text: str) -> None:
    x, ends = topics(64), []
    for compiled in (False, "never"):
        vae = VAE(config(with_total(text)), seed=0)
        vae.initialize(x)
        mode: Any = compiled
        optimizer = torch.optim.Adam(vae.parameters(), lr=0.02)
        svi = CompiledSVI(vae.model, vae.guide, optimizer, Trace_ELBO(), compile=mode)
        with seeded(5), pyro.get_param_store().scope():
            ends.append(torch.tensor([float(svi.step(x)) for _ in range(20)]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-2)
    assert float(ends[0][-5:].mean()) < float(ends[0][:5].mean())
    assert evaluate(vae, x, num_draws=20).discrete
    assert vae.sample(7, seed=1).shape == vae.reconstruct(x[:7]).shape == (7, 12)
