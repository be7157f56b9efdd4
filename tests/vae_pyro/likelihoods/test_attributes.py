"""Attributes of likelihoods, on which the rest of the package relies, against the distributions themselves."""

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.data.tables.schema import Column
from vae_pyro.densities.measure import Measure
from vae_pyro.likelihoods import LIKELIHOODS, Likelihood
from vae_pyro.likelihoods.noise import NOISES, likelihood_of

SHAPE = (2, 3)
COLUMNS = [{"name": "a", "kind": "real"}, {"name": "b", "kind": "binary", "categories": [0, 1]}]
OPTIONS: dict[str, dict[str, Any]] = {
    "categorical": {"num_classes": 4},
    "discretized_logistic": {"levels": 5},
    "table": {"columns": [Column(**column).model_dump() for column in COLUMNS]},
}
NAMES = [
    name
    for name in LIKELIHOODS
    if name in OPTIONS or not any(field.is_required() for field in LIKELIHOODS.options(name).model_fields.values())
]


def build(name: str, **options: Any) -> Likelihood:
    choice = LIKELIHOODS.resolve({"name": name, **OPTIONS.get(name, {}), **options})
    return LIKELIHOODS.build(choice, (2,) if LIKELIHOODS[name].needs_schema else SHAPE).double()


def outputs(likelihood: Likelihood, batch: int = 4) -> Tensor:
    with seeded(1):
        return torch.randn(batch, *likelihood.output_shape, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_reparameterised_likelihoods_have_differentiable_draws(name: str) -> None:
    likelihood = build(name)
    with isolated(0):
        assert LIKELIHOODS[name].reparameterized == likelihood.observed(outputs(likelihood)).has_rsample


@pytest.mark.parametrize("name", NAMES)
def test_the_measure_is_that_of_the_support(name: str) -> None:
    likelihood = build(name)
    support = likelihood(outputs(likelihood)).support
    if not likelihood.needs_schema:
        assert likelihood.discrete == support.is_discrete
    expected = Measure.PROBABILITY if likelihood.discrete else Measure.DENSITY
    assert likelihood.measure is (Measure.GIVEN_TOTAL if likelihood.given_total else expected)


def test_the_measure_of_noisy_data_and_of_a_total_is_their_own() -> None:
    def measure(likelihood: str, noise: str | None = None) -> Measure:
        chosen = None if noise is None else NOISES.resolve(noise)
        return likelihood_of(LIKELIHOODS.resolve(likelihood), chosen, SHAPE).measure

    assert measure("multinomial") is Measure.GIVEN_TOTAL
    assert measure("bernoulli") is Measure.PROBABILITY
    assert measure("bernoulli", "gaussian:scale=1") is Measure.DENSITY
    assert measure("gamma") is Measure.DENSITY
    assert measure("gamma", "poisson:peak=3") is Measure.PROBABILITY


@pytest.mark.parametrize("name", NAMES)
def test_whole_data_are_the_product_of_their_elements_where_the_likelihood_says_so(name: str) -> None:
    likelihood = build(name)
    output = outputs(likelihood)
    with isolated(0):
        x = likelihood.observed(output).sample()
    elements = likelihood(output).log_prob(x).flatten(1).sum(1)
    if likelihood.elementwise:
        torch.testing.assert_close(likelihood.observed(output).log_prob(x), elements)
    assert not (likelihood.elementwise and name in ("multinomial", "table"))


@pytest.mark.parametrize("name", [name for name in NAMES if build(name).num_values is not None])
def test_the_stated_values_have_all_of_the_probability(name: str) -> None:
    likelihood = build(name)
    assert likelihood.num_values is not None
    values = torch.arange(likelihood.num_values, dtype=torch.float64).reshape(-1, 1, 1, 1)
    output = outputs(likelihood)
    total = likelihood(output).log_prob(values.expand(-1, len(output), *SHAPE)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", [name for name in NAMES if LIKELIHOODS[name].binary])
def test_binary_elements_have_their_expectation_as_probability(name: str) -> None:
    likelihood = build(name)
    output = outputs(likelihood)
    one = likelihood(output).log_prob(torch.ones(4, *SHAPE, dtype=torch.float64)).exp()
    torch.testing.assert_close(likelihood.mean_of(output), one)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_that_of_the_distribution_and_stays_where_the_spread_is_dropped(name: str) -> None:
    likelihood = build(name)
    output = outputs(likelihood)
    mean = likelihood.mean_of(output)
    torch.testing.assert_close(mean, likelihood.expectation(likelihood(output)).expand(mean.shape))
    if name in ("gaussian", "laplace", "student_t", "gamma"):
        likelihood.drop_spread()
        assert not list(likelihood.parameters())
        torch.testing.assert_close(likelihood.mean_of(output), mean)


@pytest.mark.parametrize("name", NAMES)
def test_the_width_holds_the_output_and_the_levels_that_noise_sums_over(name: str) -> None:
    likelihood = build(name)
    assert likelihood.max_width >= prod(likelihood.output_shape)
    if name in ("bernoulli", "discretized_logistic"):
        number = likelihood.num_values
        assert NOISES.build(NOISES.resolve("gaussian:scale=1"), likelihood).max_width == prod(SHAPE) * (number or 0)
