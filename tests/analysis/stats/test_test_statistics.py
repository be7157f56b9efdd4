"""Test statistics: values known by hand, shapes, what is hidden has no influence, and the same bits in any batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.stats.test_statistics import STATISTICS, aggregate, canonical, default_statistics, measure

type Array = np.ndarray[Any, Any]

TABULAR = [name for name in STATISTICS if name not in ("neighbours", "left_right", "up_down")]


def of(name: str, x: Any, event_dim: int = 1) -> Any:
    return measure(np.asarray(x, dtype=float), [name], event_dim=event_dim)[name]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mean", np.mean),
        ("sd", np.std),
        ("min", np.min),
        ("max", np.max),
        ("zeros", lambda x: np.mean(x == 0)),
        ("intensity", np.sum),
        ("q05", lambda x: np.quantile(x, 0.05)),
        ("q50", np.median),
        ("q95", lambda x: np.quantile(x, 0.95)),
        ("quantile:q=0.3", lambda x: np.quantile(x, 0.3)),
        ("quantile:q=1", np.max),
        ("sparsity", lambda x: (20**0.5 - np.abs(x).sum() / (x**2).sum() ** 0.5) / (20**0.5 - 1)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_statistic_is_numpys(name: str, reference: Callable[[Array], float], dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 7, 4, 5)).astype(dtype)
    x[x > 1] = 0
    got = measure(x, [name], event_dim=2)[name]
    assert got.shape == (3, 7)
    assert got.dtype == np.float64
    required = [[reference(datum) for datum in row] for row in x.astype(float)]
    np.testing.assert_allclose(got, required, rtol=1e-12 if dtype == np.float64 else 3e-6, atol=1e-6)


def test_sparsity_at_its_ends() -> None:
    assert of("sparsity", [[0, 0, 3, 0], [2, 2, -2, 2], [0, 0, 0, 0]]).tolist() == [1, 0, 0]
    assert of("sparsity", [[3.0]]).tolist() == [0]


def test_neighbours_of_patterns() -> None:
    """A checkerboard has I = -1: every pair of neighbours differs. Halves: 2 * 4 * 3 = 24 pairs, 4 of them unlike."""
    board = np.indices((4, 4)).sum(0) % 2
    halves = np.repeat([[0], [0], [1], [1]], 4, axis=1)
    constant = np.full((4, 4), 3.0)
    got = of("neighbours", np.stack([board, halves, constant]), 2)
    np.testing.assert_allclose(got, [-1, (20 - 4) / 24, 0])


def test_neighbours_of_noise_average_what_exchangeable_pixels_have() -> None:
    """E I = -1 / (n - 1) (Moran 1950); 4 standard errors, failing in 1 of 16,000 seeds."""
    values = of("neighbours", np.random.default_rng(0).normal(size=(20_000, 1, 4, 5)), 3)
    assert abs(values.mean() + 1 / 19) < 4 * values.std() / 20_000**0.5


def test_symmetry_of_mirror_images() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6))
    both = np.concatenate([x, x[:, ::-1]], 1)
    against = np.concatenate([x - x.mean(), -(x - x.mean())[:, ::-1]], 1)
    np.testing.assert_allclose(of("left_right", np.stack([both, against, np.ones((4, 12))]), 2), [1, -1, 0])
    np.testing.assert_allclose(of("up_down", np.stack([both.T, against.T]), 2), [1, -1])
    flipped = np.corrcoef(x.ravel(), x[:, ::-1].ravel())[0, 1]
    np.testing.assert_allclose(of("left_right", x[None], 2), flipped)
    np.testing.assert_allclose(of("up_down", x[None], 2), np.corrcoef(x.ravel(), x[::-1].ravel())[0, 1])


@pytest.mark.parametrize("name", TABULAR)
def test_what_is_not_observed_might_as_well_not_be_there(name: str) -> None:
    """A datum with hidden elements is measured as the shorter datum; one that is hidden altogether has no value."""
    random = np.random.default_rng(0)
    x = random.poisson(1.0, size=(5, 8)).astype(float) - 1
    x[:, [1, 4, 7]] = np.nan
    # Sums of 8 numbers and of 5 are added in another order on some processors.
    np.testing.assert_allclose(of(name, x), of(name, np.delete(x, [1, 4, 7], axis=1)), rtol=1e-14)
    assert np.isnan(of(name, np.full((2, 8), np.nan))).all()


@pytest.mark.parametrize("name", ["neighbours", "left_right", "up_down"])
def test_images_with_hidden_pixels(name: str) -> None:
    """Hidden columns on both sides of an image leave what the image between them has."""
    x = np.random.default_rng(0).normal(size=(5, 1, 6, 4))
    framed = np.pad(x, ((0, 0), (0, 0), (0, 0), (2, 2)), constant_values=np.nan)
    np.testing.assert_allclose(of(name, framed, 3), of(name, x, 3), rtol=1e-12)
    assert np.isnan(of(name, np.full((1, 3, 3), np.nan), 2)).all()


@pytest.mark.parametrize("name", list(STATISTICS))
def test_a_datum_has_the_same_bits_in_every_batch(name: str) -> None:
    """Ties between data and replications are counted, so that rounding must not depend on the neighbours in memory."""
    x = (np.random.default_rng(0).random((9, 5, 1, 7, 7)) < 0.3).astype(np.float32)
    x[3] = x[0]
    together = measure(x, [name], event_dim=3)[name]
    np.testing.assert_array_equal(together[0], together[3])
    for index in range(5):
        np.testing.assert_array_equal(
            measure(x[2:3, index : index + 1], [name], event_dim=3)[name][0, 0], together[2, index]
        )


def test_aggregates_over_data() -> None:
    values = np.array([[1.0, 2.0, np.nan, 6.0], [4.0, 4.0, np.nan, 4.0]])
    np.testing.assert_allclose(aggregate(values), [3, 4])
    np.testing.assert_allclose(aggregate(values, "sd"), [np.std([1, 2, 6]), 0])
    with pytest.raises(ValueError, match="unknown aggregate 'median'; choose from mean, sd"):
        aggregate(values, "median")


def test_names_and_options() -> None:
    assert canonical("quantile:q=0.9") == canonical({"name": "quantile", "q": 0.9}) == "quantile:q=0.9"
    assert default_statistics((5,)) == ("mean", "sd", "min", "max", "zeros")
    assert set(default_statistics((1, 8, 8))) - set(default_statistics((64,))) == {
        "neighbours",
        "left_right",
        "up_down",
    }
    assert default_statistics((1, 1, 8)) == default_statistics((8,))
    assert [STATISTICS.summary(name) for name in ("sd", "max")][1] == "Largest element."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("median", 1), "unknown statistic 'median'.*choose from mean, sd, min, max, zeros"),
        (("quantile:q=2", 1), "less than or equal to 1, got 2"),
        (("neighbours", 1), r"is of images \(..., rows, columns\), and a datum has shape \(4,\); choose from mean"),
        (("mean", 0), r"data with 0 event dimensions \(at least 1\) required, got shape \(2, 4\)"),
        (("mean", 3), r"data with 3 event dimensions"),
    ],
)
def test_bad_questions(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(arguments[0], np.ones((2, 4)), arguments[1])
