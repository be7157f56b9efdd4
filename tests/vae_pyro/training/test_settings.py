"""Settings of a run: the choices that follow from the data and from each other."""

from typing import Any

import pytest

from vae_pyro import VAE
from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods import LIKELIHOODS, DataForm
from vae_pyro.training.settings import assemble

WHOLE, WITH_FRACTIONS = (DataSummary(low=0.0, high=16.0, integral=integral) for integral in (True, False))
OF_INTEGERS = [
    name for name in LIKELIHOODS if LIKELIHOODS[name].accepts(WHOLE) > LIKELIHOODS[name].accepts(WITH_FRACTIONS)
]
OPTIONS = {"categorical": {"num_classes": 17}}


def chosen(**model: Any) -> list[tuple[list[str], Any]]:
    return [(["model", key], value) for key, value in model.items()]


@pytest.mark.parametrize("name", OF_INTEGERS)
def test_a_likelihood_of_integers_is_given_the_data_as_they_are_stored(name: str) -> None:
    settings = assemble("digits", assignments=chosen(likelihood={"name": name, **OPTIONS.get(name, {})}))
    assert settings.data.config.scale == "none"
    VAE(settings.model).check_data(settings.data.train)


def test_every_likelihood_of_counts_is_one_of_integers() -> None:
    counts = ["poisson", "negative_binomial", "zero_inflated_poisson", "zero_inflated_negative_binomial", "multinomial"]
    assert {*counts, "categorical", "discretized_logistic"} <= set(OF_INTEGERS)


def test_noise_that_makes_counts_is_given_the_data_as_they_are_stored() -> None:
    settings = assemble("digits", assignments=chosen(likelihood="gamma", noise="poisson:peak=2"))
    assert settings.data.config.scale == "none"
    VAE(settings.model).check_data(settings.data.train)


def test_other_likelihoods_leave_the_scale_and_a_chosen_scale_stays() -> None:
    assert assemble("digits", assignments=chosen(likelihood="laplace")).data.config.scale == "auto"
    unit = [*chosen(likelihood="poisson"), (["data", "scale"], "unit")]
    assert assemble("digits", assignments=unit).data.config.scale == "unit"


def test_the_likelihood_follows_the_form_of_the_data() -> None:
    assert [sum(LIKELIHOODS[name].default_for is form for name in LIKELIHOODS) for form in DataForm] == [1, 1, 1]
    assert assemble("digits").model.likelihood.name == "gaussian"
    assert assemble("digits", assignments=[(["data", "binarize"], "static")]).model.likelihood.name == "bernoulli"
