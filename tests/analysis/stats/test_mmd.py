"""MMD agrees with its definition and its closed form, its test holds its level and has power, in bounded memory."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from analysis.stats import mmd as discrepancy
from analysis.stats.mmd import MMD, mmd

RATE = 4 * (0.95 * 0.05 / 200) ** 0.5  # four binomial errors of a nominal 95 % over 200 repetitions: 6e-5


def gaussian(seed: int, n: int, *, d: int = 2, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return shift + scale * np.random.default_rng(seed).normal(size=(n, d))


def kernel(a: np.ndarray, b: np.ndarray, lengths: Any) -> np.ndarray:
    square = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.mean([np.exp(-square / (2 * h**2)) for h in lengths], axis=0)


def by_definition(x: np.ndarray, y: np.ndarray, lengths: Any) -> float:
    m, n = len(x), len(y)
    xx, yy = kernel(x, x, lengths).sum() - m, kernel(y, y, lengths).sum() - n
    return float(xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2 * kernel(x, y, lengths).mean())


def first_order(x: np.ndarray, y: np.ndarray, lengths: Any) -> float:
    """4 Var(h(x)) / m + 4 Var(h(y)) / n, h the mean kernel with a row's own sample less that with the other."""
    variance = 0.0
    for a, b in ((x, y), (y, x)):
        own = (kernel(a, a, lengths).sum(1) - 1) / (len(a) - 1)
        variance += 4 * (own - kernel(a, b, lengths).mean(1)).var(ddof=1) / len(a)
    return variance


@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("bandwidth", [1.3, (0.5, 2.0), "median", "ladder"])
def test_the_value_is_its_definition_in_any_blocks(rows: int, bandwidth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_ROWS", rows)
    x, y = gaussian(0, 40, d=3), gaussian(1, 30, d=3, shift=0.3)
    result = mmd(x, y, seed=0, bandwidth=bandwidth, num_permutations=9)
    np.testing.assert_allclose(result.value, by_definition(x, y, result.bandwidth), rtol=1e-10)
    np.testing.assert_allclose(result.standard_error**2, first_order(x, y, result.bandwidth) + result.null.var())
    if bandwidth == "median":
        pooled = np.concatenate([x, y])
        distances = np.linalg.norm(pooled[:, None] - pooled, axis=-1)[np.triu_indices(70, 1)]
        np.testing.assert_allclose(result.bandwidth, np.median(distances))


def test_permuted_values_are_those_of_relabelled_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_ROWS", 11)
    x, y = gaussian(0, 20), gaussian(1, 15, shift=0.5)
    result = mmd(x, y, seed=3, bandwidth=1.0, num_permutations=5)
    labels = np.zeros((5, 35))
    labels[:, :20] = 1
    pooled = np.concatenate([x, y])
    permuted = np.random.default_rng(3).permuted(labels, axis=1).astype(bool)
    expected = [by_definition(pooled[row], pooled[~row], [1.0]) for row in permuted]
    np.testing.assert_allclose(np.sort(result.null), np.sort(expected), rtol=1e-9)


def test_the_estimate_is_unbiased_and_its_error_covers() -> None:
    """Two Gaussians have a closed MMD. Mean over 200 repetitions within 4 standard errors (6e-5); |z| < 1.96 in at
    least 95 % less 4 binomial errors: the stated error is a little wide, so that only too few would be wrong."""
    h, shift, scale, d = 1.5, 0.4, 1.3, 2

    def expected(variance: float, distance: float) -> float:
        total = h**2 + variance
        return float((h**2 / total) ** (d / 2) * np.exp(-d * distance**2 / (2 * total)))

    exact = expected(2, 0) + expected(2 * scale**2, 0) - 2 * expected(1 + scale**2, shift)
    results = [
        mmd(gaussian(2 * s, 80), gaussian(2 * s + 1, 60, shift=shift, scale=scale), seed=s, bandwidth=h)
        for s in range(200)
    ]
    values = np.array([result.value for result in results])
    assert abs(values.mean() - exact) < 4 * values.std() / 200**0.5
    errors = np.array([result.standard_error for result in results])
    assert (np.abs(values - exact) / errors < 1.96).mean() > 0.95 - RATE
    assert 0.95 < errors.mean() / values.std() < 1.4


def test_the_level_is_nominal() -> None:
    """Equal distributions of unequal sizes: p < 0.05 in 5 % of 200 repetitions within 4 binomial errors (6e-5), and p
    is 0.5 on average within 4 standard errors."""
    p = np.array(
        [mmd(gaussian(2 * s, 40), gaussian(2 * s + 1, 25), seed=s, num_permutations=99).p_value for s in range(200)]
    )
    assert abs((p <= 0.05).mean() - 0.05) < RATE
    assert abs(p.mean() - 0.505) < 4 * (1 / 12 / 200) ** 0.5


@pytest.mark.parametrize("other", [{"shift": 0.5}, {"scale": 1.7}])
def test_different_distributions_are_told_apart(other: dict[str, float]) -> None:
    """Power of at least 0.95 at 100 rows in two dimensions for a shift of half a standard deviation, or 1.7 times the
    scale; 0.99 measured over 400 repetitions."""
    p = [
        mmd(gaussian(2 * s, 100), gaussian(2 * s + 1, 100, **other), seed=s, num_permutations=99).p_value
        for s in range(40)
    ]
    assert (np.array(p) <= 0.05).mean() >= 0.95


def test_a_ladder_sees_a_difference_of_small_scale() -> None:
    """A comb against a flat density of the same mean: its quarter of a median finds it in each of 10 repetitions, eight
    medians in none at p < 0.01 (at the level of the test, one of 10 would be found in 1 of 10 seeds)."""
    ladder, wide = [], []
    for seed in range(10):
        random = np.random.default_rng(seed)
        flat = random.uniform(0, 4, size=(300, 1))
        comb = np.floor(random.uniform(0, 4, size=(300, 1))) + 0.45 + 0.1 * random.uniform(size=(300, 1))
        ladder.append(mmd(flat, comb, seed=0, bandwidth="ladder").p_value)
        wide.append(mmd(flat, comb, seed=0, bandwidth=8.0).p_value)
    assert max(ladder) < 0.01
    assert min(wide) > 0.01


def test_p_values_never_reach_zero_and_the_errors_say_how_far_they_go() -> None:
    result = mmd(gaussian(0, 50), gaussian(1, 50, shift=5.0), seed=0, num_permutations=99)
    assert result.p_value == 1 / 100
    assert result.p_value_mcse >= 0.5 / 100
    assert "the samples differ in distribution" in str(result)
    assert "no difference is seen" in str(mmd(gaussian(0, 50), gaussian(1, 50), seed=0))


def test_equal_rows_differ_in_nothing() -> None:
    result = mmd(np.ones((10, 3)), np.ones((12, 3)), seed=0)
    np.testing.assert_allclose(result.value, 0, atol=1e-12)
    assert result.p_value == 1


def test_events_of_any_shape_and_the_same_seed_give_the_same_bits() -> None:
    x, y = gaussian(0, 30, d=12), gaussian(1, 40, d=12)
    flat: MMD = mmd(x, y, seed=1)
    assert mmd(x.reshape(30, 3, 4), y.reshape(40, 3, 4), seed=1).summary() == flat.summary()
    assert mmd(x, y, seed=2).summary() != flat.summary()
    assert flat.summary()["sizes"] == [30, 40]


def test_the_kernel_matrix_is_never_whole() -> None:
    x, y = gaussian(0, 2000), gaussian(1, 2000)
    tracemalloc.start()
    mmd(x, y, seed=0, num_permutations=19)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.7 * 8 * 4000**2


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), {}, "equal events required, got \\(5, 2\\) and \\(5, 3\\)"),
        (np.zeros((5, 2)), np.zeros((1, 2)), {}, "at least 2 rows of each sample required, got 5 and 1"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), {}, "5 rows hold a value that is not finite"),
        (np.zeros((5, 2)), np.zeros((5, 2)), {"bandwidth": 0.0}, "positive lengths, got \\(0.0,\\)"),
        (np.zeros((5, 2)), np.zeros((5, 2)), {"bandwidth": "mean"}, "unknown bandwidth 'mean'; choose median, ladder"),
        (np.zeros((5, 2)), np.zeros((5, 2)), {"num_permutations": 0}, "num_permutations must be at least 1, got 0"),
    ],
)
def test_bad_input(x: Any, y: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mmd(x, y, seed=0, **options)
