"""The estimators by scikit-learn's own checks, in a pipeline and a search, and beside what they wrap."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from vae_pyro import VAEImputer, VAETransformer, evaluate

SMALL: dict[str, Any] = {"hidden": (8,), "epochs": 2, "num_draws": 20}


@parametrize_with_checks([VAETransformer(**SMALL), VAEImputer(**SMALL, latent_dim=2, objective="elbo")])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    state = np.random.get_state()  # noqa: NPY002 (some checks draw from the global generator themselves)
    try:
        check(estimator)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_no_random_state_leaves_the_global_generator_alone(table: np.ndarray[Any, Any]) -> None:
    first, second = (VAETransformer(**SMALL).fit(table) for _ in range(2))
    assert first.seed_ != second.seed_  # equal in 1 of 2 thousand million runs


@pytest.fixture(scope="module")
def table() -> np.ndarray[Any, Any]:
    x = StandardScaler().fit_transform(load_breast_cancer().data)
    return x[:200, :8]


def hide(x: np.ndarray[Any, Any], share: float, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


def test_transform_is_the_mean_of_the_guide(table: np.ndarray[Any, Any]) -> None:
    x = hide(table, 0.2)
    made = VAETransformer(3, **SMALL, random_state=0).fit(x)
    mask = torch.from_numpy(~np.isnan(x))
    expected = made.vae_.encode(np.nan_to_num(x), mask=mask).mean.detach().numpy()
    np.testing.assert_allclose(made.transform(x), expected)
    assert made.get_feature_names_out().tolist() == [f"vaetransformer{k}" for k in range(3)]
    back = made.inverse_transform(made.transform(x))
    assert back.shape == x.shape
    with pytest.raises(ValueError, match="latent|shape"):
        made.inverse_transform(np.zeros((2, 4)))


def test_scores_are_log_densities_and_do_not_depend_on_the_company(table: np.ndarray[Any, Any]) -> None:
    x = hide(table, 0.2)
    made = VAETransformer(2, hidden=(16,), epochs=20, num_draws=1000, random_state=0).fit(x)
    scores = made.score_samples(x)
    known = evaluate(made.vae_, x, num_draws=1000, seed=5)
    # Two estimates with independent draws, of about the same error; 200 of them, beyond 4.5 in 1 of 700 runs.
    z = (scores - known.log_px) / (2**0.5 * np.maximum(known.log_px_se, 1e-3))
    assert np.abs(z).max() < 5
    assert abs(z.mean()) < 5 / 200**0.5
    np.testing.assert_array_equal(made.score_samples(x[50:60]), scores[50:60])
    assert made.score(x) == pytest.approx(scores.mean())
    longer = VAETransformer(2, hidden=(16,), epochs=60, num_draws=1000, random_state=0).fit(x)
    assert longer.score(x) > made.score(x)


def test_masked_values_and_dtypes(table: np.ndarray[Any, Any]) -> None:
    x = hide(table, 0.3)
    made = VAETransformer(2, **SMALL, random_state=0, encode_mask=True).fit(x)
    again = VAETransformer(2, **SMALL, random_state=0, encode_mask=True).fit(x)
    np.testing.assert_array_equal(made.transform(x), again.transform(x))
    assert made.transform(x.astype(np.float32)).dtype == np.float32
    other = VAETransformer(2, **SMALL, random_state=1, encode_mask=True).fit(x)
    assert (other.transform(x) != made.transform(x)).any()


def test_samples(table: np.ndarray[Any, Any]) -> None:
    bits = (table > 0).astype(float)
    made = VAETransformer(2, **SMALL, likelihood="bernoulli", random_state=0).fit(bits)
    drawn = made.sample(50)
    assert drawn.shape == (50, 8)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_array_equal(drawn, made.sample(50))
    assert (drawn != made.sample(50, random_state=3)).any()
    with pytest.raises(ValueError, match="bernoulli"):
        VAETransformer(2, **SMALL, likelihood="bernoulli").fit(table)


def test_imputer_beats_the_mean_and_leaves_what_was_observed(table: np.ndarray[Any, Any]) -> None:
    x = hide(table, 0.3)
    made = VAEImputer(4, hidden=(32,), epochs=40, lr=3e-3, objective="elbo", num_draws=300, random_state=0).fit(x)
    filled = made.transform(x)
    seen = ~np.isnan(x)
    np.testing.assert_array_equal(filled[seen], x[seen])
    error = ((filled - table)[~seen] ** 2).mean()
    mean = ((SimpleImputer().fit_transform(x) - table)[~seen] ** 2).mean()
    assert error < 0.6 * mean
    several = made.impute(x, num_imputations=3)
    np.testing.assert_array_equal(several.mean, filled)
    assert several.imputations.shape == (3, *x.shape)
    assert made.get_feature_names_out().tolist() == [f"x{k}" for k in range(8)]
    np.testing.assert_array_equal(made.transform(table[:5]), table[:5])  # new data, nothing missing
    x[:, 3] = np.nan
    with pytest.raises(ValueError, match="column 3 has no value that is observed"):
        clone(made).fit(x)


def test_in_a_pipeline_and_a_search(table: np.ndarray[Any, Any]) -> None:
    label = load_breast_cancer().target[:200]
    x = hide(table, 0.2)
    pipeline = make_pipeline(
        VAEImputer(2, hidden=(16,), epochs=10, objective="elbo", num_draws=50, random_state=0),
        VAETransformer(3, hidden=(16,), epochs=40, lr=1e-2, random_state=0),
        LogisticRegression(),
    )
    assert pipeline.fit(x, label).score(x, label) > 0.8
    search = GridSearchCV(
        VAETransformer(**SMALL, random_state=0), {"latent_dim": [1, 2], "lr": [1e-3, 1e-2]}, cv=2
    ).fit(x)
    assert search.best_params_["lr"] == 1e-2
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.transform(x), search.transform(x))


def test_options_are_checked_at_the_fit(table: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="unknown objective 'elbow'"):
        VAETransformer(**SMALL, objective="elbow").fit(table)
    with pytest.raises(ValueError, match="latent_dim"):
        VAETransformer(0, **SMALL).fit(table)
    made = VAETransformer(**{**SMALL, "num_draws": 0}).fit(table)
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        made.score_samples(table)


@pytest.mark.parametrize("offset", [1e5, 1e7, 1.7e9])
def test_nothing_depends_on_how_far_from_zero_the_data_lie(offset: float) -> None:
    random = np.random.default_rng(0)
    z = random.standard_normal(200)
    x = np.c_[z, -z] + 0.1 * random.standard_normal((200, 2))
    options: dict[str, Any] = {"epochs": 20, "num_draws": 50, "lr": 5e-3, "random_state": 0}
    near, far = VAETransformer(1, **options).fit(x), VAETransformer(1, **options).fit(x + offset)
    assert abs(near.score(x) - far.score(x + offset)) < 0.1
    np.testing.assert_allclose(far.sample(5) - offset, near.sample(5), atol=0.1)
    np.testing.assert_allclose(far.inverse_transform([[0.5]]) - offset, near.inverse_transform([[0.5]]), atol=0.1)
    hidden = hide(x, 0.2)
    filler = VAEImputer(1, **options, objective="elbo", hidden=(8,))
    filled = filler.fit(hidden + offset).transform(hidden + offset)
    seen = ~np.isnan(hidden)
    np.testing.assert_array_equal(filled[seen], (hidden + offset)[seen])
    expected = filler.fit(hidden).transform(hidden)
    np.testing.assert_allclose(filled - offset, expected, atol=0.2)
    found = filler.fit(hidden + offset).impute(hidden + offset)
    assert found.lower is not None
    assert found.upper is not None
    assert ((found.lower <= found.mean) & (found.mean <= found.upper)).all()


def test_counts_far_from_zero_are_not_moved() -> None:
    x = np.random.default_rng(0).poisson(5.0, (50, 2)).astype(float)
    assert not VAETransformer(1, **SMALL, likelihood="poisson", random_state=0).fit(x).offset_.any()


@pytest.mark.parametrize("kind", [float, np.float32, int])
def test_masked_arrays_are_nan_where_they_hide(kind: type, table: np.ndarray[Any, Any]) -> None:
    hidden = np.random.default_rng(0).random(table.shape) < 0.2
    x = np.round(10 * table).astype(kind)
    masked, holes = np.ma.MaskedArray(np.where(hidden, 10**6, x).astype(kind), hidden), np.where(hidden, np.nan, x)
    scores = [VAETransformer(**SMALL, random_state=0).fit(one).score_samples(one) for one in (masked, holes)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_the_score_of_a_row_without_a_value_is_zero(table: np.ndarray[Any, Any]) -> None:
    x = hide(table, 0.2)
    x[3] = np.nan
    scores = VAETransformer(**SMALL, random_state=0).fit(x).score_samples(x)
    assert scores[3] == 0
    assert (np.delete(scores, 3) != 0).all()


def test_one_hidden_layer_may_be_its_width_alone(table: np.ndarray[Any, Any]) -> None:
    options = {**SMALL, "random_state": 0}
    one, same = (VAETransformer(2, **{**options, "hidden": hidden}).fit(table) for hidden in (np.int64(8), (8,)))
    np.testing.assert_array_equal(one.score_samples(table), same.score_samples(table))
