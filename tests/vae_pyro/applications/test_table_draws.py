"""Draws of a table as a table: joint and conditional distribution of the model, by quadrature over its latent."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare, ks_1samp, norm
from torch import Tensor

from tests.vae_pyro.likelihoods.tables import frame as table
from vae_pyro import VAE, VAEConfig
from vae_pyro.applications.table_draws import sample_frame
from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.conditions import as_frame, conditions
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.schema import Column, Schema

NAMES = ["city", "height", "visits", "grade"]
# Of each of the tests against a distribution; they are seven.
ALPHA = 1e-4


@pytest.fixture(scope="module")
def vae() -> VAE:
    """A model of one latent whose columns hang together by it."""
    schema = infer(table(400)[NAMES])
    columns = [column.model_dump() for column in schema.columns]
    config = VAEConfig(
        x_shape=(4,), latent_dim=1, encoder="mlp:hidden=[]", decoder="mlp:hidden=[8]",
        likelihood={"name": "table", "columns": columns},
    )  # fmt: skip
    made = VAE(config, seed=0)
    x = torch.from_numpy(schema.encode(table(400)[NAMES])[0]).float()
    made.initialize(x)
    with torch.no_grad(), seeded(4):
        for parameter in made.model.decoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def densities(vae: VAE, values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes z, their prior weights, and log p(x | z) of single columns, shape ``(node, value, column)``."""
    z = torch.linspace(-6, 6, 2001)
    weight = torch.from_numpy(norm.pdf(z.numpy())).double()
    length = len(next(iter(values.values())))
    x = torch.zeros(length, 4)
    for name, column in values.items():
        x[:, NAMES.index(name)] = column
    with torch.no_grad():
        elements = vae.model.likelihood(vae.model.decoder(z[:, None]))
        return z, weight / weight.sum(), elements.expand((len(z), 4)).log_prob(x[:, None]).transpose(0, 1).double()


def test_draws_have_names_categories_types_and_range(vae: VAE) -> None:
    source = table(400)[NAMES]
    drawn = sample_frame(vae, 300, seed=1)
    assert list(drawn.columns) == NAMES
    assert len(drawn) == 300
    assert dict(drawn.dtypes) == dict(source.dtypes)
    assert drawn["height"].between(source["height"].min(), source["height"].max()).all()
    assert set(drawn["city"]) <= set(source["city"])
    pd.testing.assert_frame_equal(drawn, sample_frame(vae, 300, seed=1))
    assert not drawn.equals(sample_frame(vae, 300, seed=2))


def test_draws_given_a_value_are_of_the_conditional_distribution(vae: VAE) -> None:
    """p(grade | city) = the average of p(grade | z) with weights p(city | z) p(z)."""
    schema = vae.model.likelihood.schema
    assert schema is not None
    of_the_marginal = []
    for code, city in enumerate(schema.columns[0].categories[:3]):
        drawn = sample_frame(vae, 2000, where={"city": city}, num_draws=20_000, seed=code)
        assert set(drawn["city"]) == {city}
        grades = schema.columns[3].categories
        _, prior, log = densities(vae, {"city": torch.full((3,), float(code)), "grade": torch.arange(3.0)})
        weight = prior * log[:, 0, 0].exp()
        expected = ((weight / weight.sum())[:, None] * log[:, :, 3].exp()).sum(0).numpy()
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        marginal = (prior[:, None] * log[:, :, 3].exp()).sum(0).numpy()
        observed = np.array([(drawn["grade"] == grade).sum() for grade in grades])
        assert drawn.attrs["effective_sample_size"] > 1000
        assert chisquare(observed, 2000 * expected / expected.sum()).pvalue > ALPHA
        of_the_marginal.append(chisquare(observed, 2000 * marginal / marginal.sum()).pvalue)
    assert min(of_the_marginal) < ALPHA  # they are other distributions


def test_conditions_that_are_no_equalities_reject(vae: VAE) -> None:
    """p(grade | visits >= 6)."""
    drawn = sample_frame(vae, 1000, where="visits>=6", seed=5)
    assert drawn["visits"].min() >= 6
    _, prior, log = densities(vae, {"visits": torch.arange(6.0), "grade": torch.arange(6.0) % 3})
    weight = prior * (1 - log[:, :, 2].exp().sum(1))
    expected = ((weight / weight.sum())[:, None] * log[:, :3, 3].exp()).sum(0).numpy()
    observed = np.array([(drawn["grade"] == grade).sum() for grade in ("low", "mid", "high")])
    assert chisquare(observed, 1000 * expected / expected.sum()).pvalue > ALPHA
    accepted = float(weight.sum())
    trials = 1000 / drawn.attrs["acceptance"]
    assert abs(drawn.attrs["acceptance"] - accepted) < 5 * np.sqrt(accepted / trials)


def test_both_kinds_of_conditions(vae: VAE) -> None:
    drawn = sample_frame(vae, 400, where="height=170, grade!=low, visits<4", seed=3)
    assert set(drawn["height"]) == {170.0}
    assert "low" not in set(drawn["grade"])
    assert drawn["visits"].max() < 4


def test_a_number_given_a_number(vae: VAE) -> None:
    """The distribution function of height given visits = 2, by quadrature."""
    drawn = sample_frame(vae, 1500, where="visits=2", num_draws=20_000, seed=8)
    z, prior, log = densities(vae, {"visits": torch.full((1,), 2.0)})
    weight = (prior * log[:, 0, 2].exp()).numpy()
    with torch.no_grad():
        elements = vae.model.likelihood(vae.model.decoder(z[:, None])).expand((len(z), 4))
    loc, sd = elements.mean[:, 1].double().numpy(), elements.variance[:, 1].double().sqrt().numpy()

    def cdf(x: np.ndarray) -> np.ndarray:
        return (weight / weight.sum()) @ norm.cdf((x[None] - loc[:, None]) / sd[:, None])

    column = vae.model.likelihood.schema.columns[1]  # type: ignore[union-attr]
    inside = drawn["height"][(drawn["height"] > column.low) & (drawn["height"] < column.high)].to_numpy()
    low, high = cdf(np.array([column.low, column.high]))
    assert ks_1samp(inside, lambda x: (cdf(x) - low) / (high - low)).pvalue > ALPHA


def test_conditions_without_mass_are_refused(vae: VAE) -> None:
    with pytest.raises(ValueError, match=r"none of .* draws meets the conditions; they have no mass in the model"):
        sample_frame(vae, 5, where="visits>1e9")
    with pytest.raises(ValueError, match=r"'height' goes from .* to .* in the data; nothing is known of rows beyond"):
        sample_frame(vae, 5, where="height=1000")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("price>3", "no column 'price'; columns are 'city', 'height', 'visits', 'grade'"),
        ("city=Rome", "'city' has no category 'Rome'; it has "),
        ("city<Bern", "the categories of 'city' have no order; compare with = or !="),
        ("height=tall", "'height' holds numbers, and 'tall' is none"),
        ("visits=1.5", "'visits' holds whole numbers"),
        ("city=Bern, city=Graz", "column 'city' has a value already"),
        ("height", "'height' is no condition; write column=value or column>value"),
        ("=3", "'=3' is no condition"),
    ],
)
def test_conditions_that_say_nothing_are_refused(vae: VAE, where: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        sample_frame(vae, 5, where=where)


def test_only_tables_have_conditions() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian"))
    with pytest.raises(ValueError, match="the likelihood 'gaussian' has no columns"):
        sample_frame(vae, 5)


def test_conditions_are_read_from_text_and_mappings() -> None:
    found = conditions('cut = Ideal, price>=5e3,"a, b"!="x = 1"')
    assert [(one.column, one.operator, one.value) for one in found] == [
        ("cut", "=", "Ideal"),
        ("price", ">=", "5e3"),
        ("a, b", "!=", "x = 1"),
    ]
    assert [str(one) for one in conditions({"cut": "Ideal", "price": 3})] == ["cut=Ideal", "price=3"]
    assert conditions(None) == []


def test_draws_are_rounded_and_bounded_as_the_data_are() -> None:
    schema = Schema(
        columns=(
            Column(name="price", kind="real", low=0.5, high=9.5, step=0.25),
            Column(name="age", kind="real", dtype="int64", low=1, high=5, step=1.0),
        )
    )
    made = as_frame(np.array([[0.6, 0.2], [3.3, 2.6], [99.0, 9.0]]), schema)
    assert made["price"].tolist() == [0.5, 3.25, 9.5]
    assert made["age"].tolist() == [1, 3, 5]
    assert made["age"].dtype == np.int64
