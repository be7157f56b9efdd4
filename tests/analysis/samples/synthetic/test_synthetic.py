"""Draws that are new rows of the same distribution pass; draws with one fault are refused for that fault."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from analysis import synthetic_data_check
from analysis.samples.synthetic.columns import associations, column_distance, copies
from analysis.samples.synthetic.prediction import auc
from analysis.samples.synthetic.result import SyntheticDataCheck
from vae_pyro.data.tables.inference import infer

ROWS = 1200


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    z = random.normal(size=rows)
    return pd.DataFrame(
        {
            "height": 170 + 8 * z + 3 * random.normal(size=rows),
            "income": np.exp(7 + 0.5 * z + 0.5 * random.normal(size=rows)),
            "smokes": np.where(z + random.logistic(size=rows) * 0.5 > 0, "yes", "no"),
            "city": random.choice(["Bern", "Graz", "Lyon"], rows, p=[0.5, 0.3, 0.2]),
        }
    )


TRAIN, TEST = table(ROWS, 1), table(ROWS, 2)


def check(draws: pd.DataFrame, **options: int) -> SyntheticDataCheck:
    return synthetic_data_check(TRAIN, TEST, draws, num_targets=options.pop("num_targets", 3), seed=0, **options)


def outcomes(found: SyntheticDataCheck) -> dict[str, str]:
    return {verdict.name: verdict.outcome for verdict in found.verdicts}


@pytest.fixture(scope="module")
def exact() -> SyntheticDataCheck:
    return check(table(ROWS, 3))


def test_new_rows_of_the_same_distribution_pass(exact: SyntheticDataCheck) -> None:
    """Each verdict fails one in a thousand times at most; the AUC is within 4 standard errors."""
    assert set(outcomes(exact).values()) == {"pass"}, str(exact)
    assert abs(exact.auc - 0.5) < 4 * exact.auc_se
    assert exact.copies == exact.copies_held_out == 0
    assert exact.association_error < 0.06
    assert list(exact.scores) == ["height", "smokes", "city"]


def test_independent_columns_are_no_draws(exact: SyntheticDataCheck) -> None:
    random = np.random.default_rng(0)
    shuffled = pd.DataFrame({name: random.permutation(values) for name, values in table(ROWS, 3).items()})
    found = check(shuffled)
    seen = outcomes(found)
    assert seen["synthetic_columns"] == "pass"
    assert seen["synthetic_prediction"] == "fail"
    assert found.auc > 0.65
    assert found.association_error > 4 * exact.association_error


def test_a_shifted_column_is_named() -> None:
    draws = table(ROWS, 3)
    draws["income"] *= 1.5
    found = check(draws, num_targets=0)
    assert outcomes(found) == {"synthetic_columns": "fail", "synthetic_copies": "pass"}
    assert found.to_dataframe()["distance"].idxmax() == "income"
    assert "'income'" in found.verdicts[0].advice


def test_a_rare_category_too_often_is_seen() -> None:
    draws = table(ROWS, 3)
    draws.loc[:300, "city"] = "Lyon"
    assert outcomes(check(draws, num_targets=0))["synthetic_columns"] == "fail"


def test_training_rows_again_are_copies() -> None:
    found = check(TRAIN.sample(ROWS, replace=True, random_state=0))
    assert outcomes(found)["synthetic_copies"] == "fail"
    assert found.copies == 1


def test_what_draws_reveal_of_training_rows_is_seen() -> None:
    """Draws that repeat each training row with its neighbourhood teach boosting its noise."""
    random = np.random.default_rng(0)
    noise = pd.DataFrame(random.normal(size=(1200, 3)), columns=["a", "b", "c"])
    train, test = noise.iloc[:200], noise.iloc[200:]
    draws = pd.concat([train + 0.001 * random.normal(size=train.shape) for _ in range(6)], ignore_index=True)
    schema = infer(train)
    found = synthetic_data_check(train, test, draws.iloc[:1200], schema=schema, num_targets=3, seed=0)
    assert outcomes(found)["synthetic_inference"] == "fail", str(found)
    others = pd.DataFrame(random.normal(size=(1200, 3)), columns=["a", "b", "c"])
    fresh = synthetic_data_check(train, test, others, schema=schema, num_targets=3, seed=0)
    assert outcomes(fresh)["synthetic_inference"] != "fail"


def test_distances_are_those_of_the_definitions() -> None:
    one, two = np.array([0, 0, 1, 2.0]), np.array([0, 1, 1, np.nan])
    assert column_distance(one, two, 3)[0] == pytest.approx(0.5)  # shares .5 .25 .25 0 and .25 .5 0 .25
    assert column_distance(np.array([1.0, 2, np.nan]), np.array([3.0, 4]), 0)[0] == 1
    assert column_distance(np.array([np.nan]), np.array([3.0]), 0) == (0, 1)


def test_p_values_of_equal_columns_are_uniform() -> None:
    """400 tests at the 5 % level: 20 +- 4.4 rejections; beyond 38 in one run of 10,000."""
    random = np.random.default_rng(5)
    for classes in (0, 6):
        draw = (lambda: random.normal(size=80)) if not classes else (lambda: random.integers(6, size=80).astype(float))
        assert sum(column_distance(draw(), draw(), classes)[1] < 0.05 for _ in range(400)) < 38


def test_associations_have_their_closed_forms() -> None:
    random = np.random.default_rng(0)
    rows, rho = 20_000, 0.6
    x = random.normal(size=rows)
    y = rho * x + np.sqrt(1 - rho**2) * random.normal(size=rows)
    frame = pd.DataFrame({"x": x, "y": y, "same": np.where(x > 0, "a", "b"), "again": np.where(x > 0, "c", "d")})
    schema = infer(frame)
    found = associations(schema.encode(frame)[0], schema)
    spearman = 6 / np.pi * np.arcsin(rho / 2)  # of a bivariate normal
    assert found[0, 1] == pytest.approx(spearman, abs=4 * (1 - spearman**2) / np.sqrt(rows))
    assert found[2, 3] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(np.sqrt(0.75), abs=1e-3)  # halves of ranks: 3/4 of the variance is between
    assert np.isnan(found.diagonal()).all()


def test_the_area_of_two_normals_has_its_closed_form() -> None:
    """The best classifier of N(0, 1) and N(d, 1) has the area Phi(d / sqrt 2); boosting comes close to it."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=4000)})
    found, error = auc(frame.to_numpy(), frame.to_numpy() + 1.0 + 0 * frame.to_numpy(), infer(frame), seed=0)
    assert found == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=4 * error + 0.02)


def test_copies_are_exact_and_missing_values_equal_each_other() -> None:
    known = np.array([[1.0, np.nan], [2, 3]])
    (found,) = copies(known, np.array([[1.0, np.nan], [2, np.nan], [2, 3]]))
    assert found.tolist() == [True, False, True]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 50 rows of each table are required, got 1200 for training, 20 held"):
        synthetic_data_check(TRAIN, TEST[:20], TEST)


def test_its_print_fits_a_screen_and_it_draws(exact: SyntheticDataCheck) -> None:
    assert len(str(exact).splitlines()) < 15
    assert exact.plot().axes
    assert exact.to_dataframe().loc["smokes", "score_train"] > 0.7
