"""Settings of a run: the choices that follow from the data and from each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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


def table(path: Path, **columns: Any) -> str:
    """A file of 120 rows."""
    random = np.random.default_rng(0)
    made = {"mass": 4000 + 800 * random.normal(size=120), "length": 40 + 5 * random.normal(size=120), **columns}
    pd.DataFrame(made).round(2).to_csv(path / "t.csv", index=False)
    return str(path / "t.csv")


def test_a_table_takes_what_suits_it_where_nothing_is_chosen(tmp_path: Path) -> None:
    source = table(tmp_path, name=["a", "b", "c"] * 40)
    found = assemble(source)
    assert found.model.likelihood.options["margins"] == "fitted"
    assert found.model.likelihood.options["scale"] == "predicted"
    assert (found.model.prior.name, found.model.latent_dim) == ("mixture", 3)
    assert (found.fit.schedule.name, found.fit.batch_size, found.fit.kl_warmup) == ("cosine", 16, 50.0)
    assert assemble(source, assignments=[(["fit", "epochs"], 1)]).fit.kl_warmup == 0.1
    changed = [*chosen(prior="normal", latent_dim=2), (["model", "likelihood", "scale"], "per_dimension")]
    found = assemble(source, assignments=[*changed, (["fit", "batch_size"], 50)])
    assert (found.model.prior.name, found.model.latent_dim, found.fit.batch_size) == ("normal", 2, 50)
    assert found.model.likelihood.options["scale"] == "per_dimension"
    assert found.model.likelihood.options["margins"] == "fitted"
    bottom_up = assemble(source, assignments=chosen(structure="bottom_up:latent_dims=[2]"))
    assert bottom_up.model.prior.name == "normal"
    asked = assemble(source, assignments=chosen(likelihood="table"))
    assert (asked.model.likelihood.options["margins"], asked.model.prior.name) == ("none", "normal")


def test_numbers_of_different_units_are_a_table(tmp_path: Path) -> None:
    """From a file of a table, an array, or a data set with a name; numbers of one unit are not, nor images."""
    source = table(tmp_path)
    np.save(tmp_path / "t.npy", pd.read_csv(source).to_numpy())
    for name, columns in ((source, ("mass", "length")), (str(tmp_path / "t.npy"), ("x[0]", "x[1]"))):
        found = assemble(name)
        assert found.model.likelihood.name == "table"
        assert found.data.facts.columns == columns
        assert found.data.config.load().facts.fingerprint == found.data.facts.fingerprint
    tumours = assemble("breast_cancer")
    assert tumours.model.likelihood.name == "table"
    assert tumours.data.train.labels is not None
    assert tumours.data.config.load().facts.fingerprint == tumours.data.facts.fingerprint
    np.save(tmp_path / "one.npy", np.random.default_rng(0).normal(size=(50, 3)))
    for name in ("moons", "digits", str(tmp_path / "one.npy")):
        assert assemble(name).model.likelihood.name == "gaussian"
