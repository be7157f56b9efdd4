"""CKA is that of the kernels by hand, ignores rotations, and is 0 where seeds share nothing; its error is right."""

import re
import tracemalloc
from math import nan, sqrt

import numpy as np
import pytest
from scipy.stats import ortho_group

from analysis.latent.similarity import agreement, linear_cka, udr

# The statistical tests have fixed seeds; over seeds, each fails with a probability below 1e-3 (4 standard errors).


def codes(seed: int, num_data: int = 200, latent_dim: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((num_data, latent_dim)) * np.linspace(1, 2, latent_dim)


def rotation(seed: int, latent_dim: int = 5) -> np.ndarray:
    return np.asarray(ortho_group.rvs(latent_dim, random_state=np.random.default_rng(seed)))


def unbiased_hsic(first: np.ndarray, second: np.ndarray) -> float:
    """As in Song et al. 2012, from the kernels, datum by datum."""
    n = len(first)
    k, m = first @ first.T, second @ second.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    terms = np.trace(k @ m), (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)), -2 / (n - 2) * (one @ k @ m @ one)
    return float(sum(terms) / (n * (n - 3)))


def plain_cka(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(0), second - second.mean(0)
    norm = np.linalg.norm
    return float(norm(first.T @ second) ** 2 / (norm(first.T @ first) * norm(second.T @ second)))


@pytest.mark.parametrize(("num_data", "dims"), [(4, (1, 1)), (6, (3, 2)), (30, (40, 7)), (200, (5, 5))])
def test_it_is_the_estimate_from_the_kernels(num_data: int, dims: tuple[int, int]) -> None:
    random = np.random.default_rng(num_data)
    first = random.standard_normal((num_data, dims[0])) + 3
    second = first @ random.standard_normal(dims) + random.standard_normal((num_data, dims[1]))
    expected = unbiased_hsic(first, second) / sqrt(unbiased_hsic(first, first) * unbiased_hsic(second, second))
    assert linear_cka(first, second) == pytest.approx(expected, abs=1e-10)
    assert linear_cka(second, first) == pytest.approx(expected, abs=1e-10)


def test_rotation_scale_and_shift_change_nothing() -> None:
    first, second = codes(0), codes(0) + 0.7 * codes(1)
    expected = linear_cka(first, second)
    assert 0.1 < expected < 0.99
    for changed in (first @ rotation(2), 1e-90 * first, -3e90 * first, first + np.array([100, 0, -20, 3, 1])):
        assert linear_cka(changed, second) == pytest.approx(expected, rel=1e-9)
        assert linear_cka(changed, first) == pytest.approx(1, abs=1e-9)
    # One axis alone scaled is another space.
    assert linear_cka(first * np.array([5, 1, 1, 1, 1]), first) < 0.9


def test_independent_codes_are_at_0_with_few_data_and_many_latents() -> None:
    """The mean of 400 pairs within 4 standard errors of 0; the plain estimate is far above."""
    pairs = [(codes(2 * seed, 20, 30), codes(2 * seed + 1, 20, 30)) for seed in range(400)]
    found = np.array([linear_cka(*pair) for pair in pairs])
    assert abs(found.mean()) < 4 * found.std(ddof=1) / 20
    assert found.min() < 0
    assert np.mean([plain_cka(*pair) for pair in pairs]) > 0.5


@pytest.mark.parametrize("shared", [1, 3, 5])
def test_codes_that_share_some_latents_have_their_share(shared: int) -> None:
    """k of 5 standard normal latents in common, each side rotated: CKA is k / 5."""
    random = np.random.default_rng(shared)
    found = []
    for _ in range(100):
        first = random.standard_normal((300, 5))
        second = np.concatenate([first[:, :shared], random.standard_normal((300, 5 - shared))], 1) @ rotation(1)
        found.append(linear_cka(first, second))
    # A ratio of estimates is biased by about 1 / n.
    assert abs(np.mean(found) - shared / 5) < 4 * np.std(found) / 10 + 2 / 300


def test_it_stays_between_minus_1_and_1() -> None:
    random = np.random.default_rng(0)
    found = [linear_cka(random.standard_normal((4, 1)), random.standard_normal((4, 2))) for _ in range(300)]
    assert -1 <= min(found) < -0.5
    assert 0.5 < max(found) <= 1


@pytest.mark.parametrize("constant", [np.full((50, 3), 0.1), np.zeros((50, 2)), np.empty((50, 0))])
def test_a_collapsed_code_has_no_direction(constant: np.ndarray) -> None:
    assert np.isnan(linear_cka(constant, codes(0, 50)))
    assert np.isnan(linear_cka(codes(0, 50), constant))
    assert np.isnan(linear_cka(constant, constant))


@pytest.mark.parametrize("num_data", [4, 10, 30, 79])
def test_a_single_datum_gives_no_direction_and_rounding_none_either(num_data: int) -> None:
    """Without the kernels' diagonals such a code is constant: its HSIC is 0, of which rounding must not make 1."""
    single = 0.3 * np.eye(num_data)[:, :1]
    assert np.isnan(linear_cka(single, single))


def test_memory_does_not_grow_with_the_square_of_the_data() -> None:
    first, second = codes(0, 20_000, 8), codes(1, 20_000, 8)
    tracemalloc.start()
    linear_cka(first, second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * first.nbytes  # a kernel has 3.2 GB


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros(5), np.zeros(5), "codes (datum, latent) of the same data required, got [(5,), (5,)]"),
        (np.zeros((5, 2)), np.zeros((6, 2)), "of the same data required, got [(5, 2), (6, 2)]"),
        (np.zeros((3, 2)), np.zeros((3, 2)), "CKA requires at least 4 data, got 3"),
        (np.zeros((5, 2)), np.full((5, 2), nan), "codes 1 hold 10 values that are not finite"),
    ],
)
def test_what_has_no_cka_is_refused(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        linear_cka(first, second)
    with pytest.raises(ValueError, match=re.escape(message)):
        agreement([first, second])


def test_rotated_copies_agree_in_space_and_not_in_axes() -> None:
    base = np.random.default_rng(0).standard_normal((2000, 5))
    turned = agreement([base @ rotation(seed) + seed for seed in range(4)])
    np.testing.assert_allclose(turned.cka, 1, atol=1e-9)
    assert (turned.cka_mean, turned.cka_se) == pytest.approx((1, 0), abs=1e-9)
    random = np.random.default_rng(1)
    permuted = agreement([base[:, random.permutation(5)] * random.choice([-1, 1], 5) for _ in range(4)])
    np.testing.assert_allclose(permuted.cka, 1, atol=1e-9)
    assert permuted.udr_mean > 0.85
    assert turned.udr_mean < permuted.udr_mean - 0.2
    assert turned.num_active.tolist() == [5] * 4


def test_independent_seeds_do_not_agree() -> None:
    """The mean of 60 experiments is within 4 standard errors of 0, and none is far from it by its own error."""
    found = [agreement([codes(10 * seed + s, 100) for s in range(5)]) for seed in range(60)]
    means = np.array([each.cka_mean for each in found])
    assert abs(means.mean()) < 4 * means.std(ddof=1) / sqrt(60)
    errors = np.array([each.cka_se for each in found])
    assert (np.abs(means) < 10 * errors).all()  # 5 seeds: t with 4 degrees of freedom is beyond 10 once in 1800
    assert np.mean(np.abs(means) < 2 * errors) > 0.7


def test_matrices_and_means_are_those_of_the_pairs() -> None:
    models = [codes(0) + size * codes(seed) for seed, size in ((1, 0.3), (2, 0.6), (3, 1.0))]
    found = agreement(models)
    for i in range(3):
        for j in range(3):
            assert found.cka[i, j] == pytest.approx(linear_cka(models[i], models[j]), abs=1e-12)
    np.testing.assert_array_equal(found.udr, udr(models).matrix)
    for matrix, mean, se in ((found.cka, found.cka_mean, found.cka_se), (found.udr, found.udr_mean, found.udr_se)):
        pairs = np.array([matrix[1, 2], matrix[0, 2], matrix[0, 1]])  # without seed 0, 1, 2
        assert mean == pytest.approx(pairs.mean())
        assert se == pytest.approx(sqrt(2 / 3 * ((pairs - pairs.mean()) ** 2).sum()))
    assert f"3 seeds on 200 data: linear CKA {found.cka_mean:.2f}"[:34] in str(found)
    assert found.summary()["cka_se"] == found.cka_se
    assert found.num_data == 200


def test_two_seeds_have_no_error() -> None:
    found = agreement([codes(0), codes(1)])
    assert np.isnan([found.cka_se, found.udr_se]).all()
    assert found.cka_mean == pytest.approx(found.cka[0, 1])
    assert found.summary()["udr_se"] is None
    assert "±" not in str(found)


@pytest.mark.parametrize("count", [3, 6])
def test_the_error_over_seeds_is_not_too_small_and_not_far_too_large(count: int) -> None:
    """Seeds that find the space well or badly: pairs share that, and the error of independent pairs is too small."""
    base, squares, naive, means = codes(0, 60), [], [], []
    for repetition in range(300):
        random = np.random.default_rng(repetition)
        noise = random.uniform(0, 1.5, count)
        models = [base + size * random.standard_normal(base.shape) for size in noise]
        found = agreement(models)
        pairs = found.cka[np.triu_indices(count, 1)]
        squares.append(found.cka_se**2)
        naive.append(pairs.var(ddof=1) / len(pairs))
        means.append(found.cka_mean)
    # The relative standard error of either variance is about sqrt(2 / 300), of their ratio twice that squared.
    ratio = np.mean(squares) / np.var(means, ddof=1)
    assert 1 - 4 * sqrt(4 / 300) < ratio < 2
    if count == 6:
        assert np.mean(naive) / np.var(means, ddof=1) < 0.7


def test_passive_latents_do_not_count_and_a_collapsed_seed_is_left_out() -> None:
    base = codes(0)
    passive = 0.01 * codes(1)
    padded = np.concatenate([base, passive], 1)
    found = agreement([padded, base, np.zeros((200, 3))])
    assert found.num_active.tolist() == [5, 5, 0]
    assert found.cka[0, 1] == pytest.approx(1)
    assert np.isnan(found.cka[2]).all()
    assert found.cka_mean == pytest.approx(1)
    assert np.isnan(found.cka_se)  # without one of the first two no pair is left
    assert found.udr[0, 2] == 0
    informative = [np.arange(10) < 2, np.arange(5) >= 2]
    chosen = agreement([padded, base], informative)
    assert chosen.num_active.tolist() == [2, 3]
    assert abs(chosen.cka_mean) < 0.1
    np.testing.assert_array_equal(chosen.udr, udr([padded, base], informative=informative).matrix)
    assert chosen.udr_mean < agreement([padded, base]).udr_mean - 0.2


def test_what_does_not_agree_in_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="agreement is of at least 2 models, got 1"):
        agreement([codes(0)])
    with pytest.raises(ValueError, match=re.escape("active must have the shapes [(5,), (5,)], got [(5,), (4,)]")):
        agreement([codes(0), codes(1)], [np.ones(5), np.ones(4)])
