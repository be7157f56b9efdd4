"""Held out or not: nominal on data of one source, coincidences of small tables included; copies are found and named."""

import json
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch

from analysis.samples.leakage.check import held_out_check
from analysis.samples.leakage.result import Leakage
from vae_pyro.data.dataset import Dataset, load_data
from vae_pyro.data.split import Split

type Array = np.ndarray[Any, Any]


def _normal(seed: int, *shape: int) -> Array:
    draws: Array = np.random.default_rng(seed).normal(size=shape)
    return draws


def _outcomes(result: Leakage) -> tuple[str, ...]:
    return tuple(verdict.outcome for verdict in result.verdicts)


def test_data_of_one_source_are_nominal() -> None:
    """200 repetitions. The p-value of closeness is at most 0.05 in 5 % of them or fewer (more than 4 SE above: 1 of
    30,000 seeds); P(farther) is 1/2 on average; at the verdict's level of 1e-3, 3 or more alarms: 1 of 900 seeds."""
    results = [held_out_check(_normal(2 * s, 300, 4), _normal(2 * s + 1, 150, 4), seed=s) for s in range(200)]
    assert np.mean([result.close_p <= 0.05 for result in results]) < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5
    z = np.array([(result.farther - 0.5) / result.farther_se for result in results])
    assert abs(z.mean()) < 4 * z.std() / 200**0.5
    assert abs(np.std([result.z for result in results]) - 1) < 4 / 400**0.5
    assert sum(_outcomes(result) != ("pass", "pass") for result in results) <= 2
    assert all(result.identical_share == 0 and result.identical_p == 1 for result in results)
    # On average as many test data are close as are said to be.
    excess = np.array([result.close - result.close_expected for result in results])
    assert abs(excess.mean()) < 4 * excess.std() / 200**0.5


@pytest.mark.parametrize("columns", [1, pytest.param(3, marks=pytest.mark.slow), 8])
def test_coincidences_of_small_tables_raise_no_alarm(columns: int) -> None:
    """Binary tables, in which most or some rows coincide anyway, over 100 repetitions: the p-value of identical rows is
    at most 0.05 in 5 % or fewer, and 3 alarms or more come in 1 of 900 seeds (two questions at 1e-3)."""
    p, excess, alarms = [], [], 0
    for seed in range(100):
        table = np.random.default_rng(seed).integers(0, 2, size=(300, columns))
        result = held_out_check(table[:200], table[200:], seed=seed)
        p.append(result.identical_p)
        excess.append(result.identical_share - result.identical_expected)
        alarms += _outcomes(result) != ("pass", "pass")
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * (0.05 * 0.95 / 100) ** 0.5
    assert alarms <= 2
    # One training datum of 200 is not compared with itself: at most 1/200 more of the test data coincide.
    assert -4 * np.std(excess) / 10 <= np.mean(excess) <= 1 / 200 + 4 * np.std(excess) / 10


def test_constant_rows_raise_no_alarm() -> None:
    result = held_out_check(np.ones((50, 3)), np.ones((20, 3)))
    assert _outcomes(result) == ("pass", "pass")
    assert result.identical_share == result.identical_expected == 1
    assert (result.z, result.close) == (0, 0)


def test_training_data_as_test_data_fail() -> None:
    train = _normal(0, 400, 5)
    result = held_out_check(train, train)
    assert _outcomes(result) == ("fail", "fail")
    assert result.identical.all()
    assert "the test data are not held out" in str(result)
    assert "400 of 400 test data equal a training datum" in str(result)
    assert json.loads(json.dumps(result.summary()))["num_identical"] == 400


def test_half_an_overlap_fails_and_is_named() -> None:
    train, fresh = _normal(0, 400, 5), _normal(1, 50, 5)
    result = held_out_check(train, np.concatenate([fresh, train[:50]]))
    assert _outcomes(result) == ("fail", "fail")
    assert result.identical.tolist() == 50 * [False] + 50 * [True]
    distance = dict(zip(result.test_rows, result.test_distance, strict=True))
    neighbour = dict(zip(result.test_rows, result.nearest_rows, strict=True))
    copied = [row for row in range(50, 100) if distance[row] == 0]
    assert len(copied) > 10  # those of the half that is not held in
    assert all(neighbour[row] == row - 50 for row in copied)
    assert all(distance[row] > 0 for row in range(50))


def test_half_an_overlap_is_seen_in_a_table_with_coincidences() -> None:
    """Ten binary columns, of whose 1,024 rows a quarter coincide anyway: found in 20 of 20 (60 of 60 when measured: a
    power above 0.95)."""
    found = 0
    for seed in range(20):
        table = np.random.default_rng(seed).integers(0, 2, size=(400, 10))
        mixed = np.concatenate([table[300:], table[:100]])
        found += _outcomes(held_out_check(table[:300], mixed, seed=seed))[0] != "pass"
    assert found == 20


def test_few_copies_are_enough() -> None:
    """3 % of 1,000 test data are training data, as in CIFAR-10, and fail; 1 % of them warn. Each of ten pairs would
    stand on both sides of a random split with probability 2 * 0.8 * 0.2: all ten in 1 of 90,000 splits."""
    train, test = _normal(0, 4000, 3), _normal(1, 1000, 3)
    for size, outcome in ((30, "fail"), (10, "warn")):
        test[:size], test[size:] = train[:size], _normal(2, 1000 - size, 3)
        result = held_out_check(train, test)
        assert _outcomes(result)[0] == outcome
        assert result.identical_share == size / 1000
        assert result.identical_p == 1 / 2000  # as small as 1,999 deals can tell


def test_the_p_value_of_identical_rows_is_that_of_dealing_them_out() -> None:
    """Two pairs and four single rows, of which four are test data: 2 of 4 test data have their like in training. Of the
    70 deals, both pairs are split in 2 * 2 * 6 = 24; within 4 SE of the Monte Carlo error (1 of 16,000 seeds)."""
    rows = np.arange(6.0)[:, None]
    result = held_out_check(np.concatenate([rows[:2], rows[2:4]]), np.concatenate([rows[:2], rows[4:]]))
    assert result.identical.tolist() == [True, True, False, False]
    assert abs(result.identical_p - 24 / 70) < 4 * (24 / 70 * 46 / 70 / 1999) ** 0.5
    assert result.identical_expected == 0
    doubled = held_out_check(np.concatenate([rows[:3], rows[:2]]), rows[4:])
    assert doubled.identical_expected == 0.8
    assert doubled.identical_p == 1


def test_near_copies_are_seen_by_their_distance() -> None:
    """With a thousandth of noise none is identical. 30 % of them fail and 10 % warn in 10 of 10 (60 of 60 when
    measured: powers above 0.95; 5 % are found in a fifth of the cases, since half of the training data is held in)."""
    for seed in range(10):
        train, test = _normal(2 * seed, 1000, 4), _normal(2 * seed + 1, 500, 4)
        for size, outcome in ((150, "fail"), (50, "warn")):
            near = test.copy()
            near[:size] = train[:size] + 1e-3 * near[:size]
            result = held_out_check(train, near, seed=seed)
            assert _outcomes(result) == ("pass", outcome), (seed, size)
            assert result.identical_share == 0


def test_test_data_from_elsewhere_are_no_leak() -> None:
    result = held_out_check(_normal(0, 400, 4), 3 * _normal(1, 400, 4))
    assert _outcomes(result) == ("pass", "pass")
    assert result.z > 4
    assert "they are farther off than training data are from each other" in " ".join(str(result).split())


def test_columns_of_a_table_count_alike() -> None:
    """Near copies but for a column of another unit, whose noise would hide them."""
    train, test = _normal(0, 400, 3), _normal(1, 200, 3)
    test[:100] = train[:100] + 1e-3
    unit = np.array([1.0, 1.0, 1e6])
    assert held_out_check(train * unit, test * unit).close == held_out_check(train, test).close
    shifted = held_out_check(train + 1e6, test + 1e6)
    np.testing.assert_allclose(shifted.test_distance, held_out_check(train, test).test_distance, atol=1e-8)
    # Pixels stay in their own unit.
    images = held_out_check((train * unit)[:, None], (test * unit)[:, None])
    assert images.test_distance.max() > 100


def test_rows_are_compared_as_stored_where_observing_draws() -> None:
    """A binarisation drawn anew would hide every copy."""
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size=(300, 1, 4, 4), dtype=np.uint8))
    train = Split(values[:200], top=255.0, draw="binarize")
    copied, fresh = train.take(slice(0, 80)), Split(values[200:], top=255.0, draw="binarize")
    assert _outcomes(held_out_check(train, copied)) == ("fail", "fail")
    assert _outcomes(held_out_check(train, fresh)) == ("pass", "pass")
    assert "rows as stored" in str(held_out_check(train, fresh))
    # The test set of `vae_pyro.load_data` is drawn once: intensities near 0 or 1 leave copies close to each other.
    # Both are then compared as drawn: grey levels beside zeros and ones would be unfair (|z| > 4 in 1 of 16,000 seeds).
    assert abs(held_out_check(train, fresh.fixed(7)).z) < 4
    sure = replace(train, values=torch.where(values[:200] < 128, 5, 250).to(torch.uint8))
    result = held_out_check(sure, sure.fixed(7))
    assert _outcomes(result) != ("pass", "pass")


def test_bytes_and_fractions_of_the_same_data_meet() -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size=(100, 8), dtype=np.uint8))
    train = Split(values, top=255.0)
    result = held_out_check(train, values[:50].to(torch.float32) / 255)
    assert result.identical.all()
    assert "rows as observed" in str(result)


def test_two_zeros_are_equal() -> None:
    train = np.concatenate([np.zeros((10, 2)), _normal(0, 40, 2)])
    assert held_out_check(train, -np.zeros((10, 2))).identical.all()


def test_hidden_elements_take_no_part() -> None:
    x = torch.from_numpy(_normal(0, 300, 6))
    mask = torch.from_numpy(np.random.default_rng(1).random((300, 6)) < 0.8)
    results = []
    for hidden in (0.0, 1e6, float("nan")):
        data = Split(torch.where(mask, x, torch.tensor(hidden, dtype=x.dtype)), mask=mask)
        results.append(held_out_check(data.take(slice(0, 200)), data.take(slice(100, 300))))
    first = results[0].summary()
    assert first["num_identical"] == 100
    for result in results:
        assert result.summary() == first
        np.testing.assert_array_equal(result.test_distance, results[0].test_distance)
    values = torch.where(mask, x, torch.tensor(-7.0, dtype=x.dtype))
    assert held_out_check(Split(x[:200], mask=mask[:200]), Split(values[150:], mask=mask[150:])).identical.sum() == 50
    # Hiding is part of a row: what is not observed is not known to be equal.
    whole = held_out_check(Split(x[:200], mask=mask[:200]), x[:50].numpy())
    assert whole.identical.sum() == mask[:50].all(1).sum()


def test_blocks_change_nothing_and_seeds_choose_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = _normal(0, 90, 3), _normal(1, 40, 3)
    whole = held_out_check(train, test, max_data=30, seed=4)
    monkeypatch.setattr("analysis.samples.leakage.rows._BLOCK", 7)
    parts = held_out_check(train, test, max_data=30, seed=4)
    assert whole.summary() == parts.summary()
    np.testing.assert_array_equal(whole.nearest_rows, parts.nearest_rows)
    assert len(whole.test_rows) == len(whole.held_in_distance) == 30
    assert (whole.test_rows != held_out_check(train, test, max_data=30, seed=5).test_rows).any()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), r"training data of shape \(2,\), test data of shape \(3,\)"),
        (np.zeros((3, 2)), np.zeros((9, 2)), "at least 4 training data and max_data=1 are required, got 3 and 2000"),
        (np.zeros((9, 2)), np.full((9, 2), np.inf), "18 values are not finite"),
    ],
)
def test_bad_input(train: Any, test: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        held_out_check(train, test)


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load_data("mnist", validation_fraction=0)


@pytest.mark.slow
@pytest.mark.mnist
def test_mnist_is_held_out_and_its_copies_are_not(mnist: Dataset) -> None:
    start = perf_counter()
    result = held_out_check(mnist.train, mnist.test)
    assert perf_counter() - start < 60
    assert _outcomes(result) == ("pass", "pass")
    values = torch.cat([mnist.test.values[:5000], mnist.train.values[:5000]])
    assert _outcomes(held_out_check(mnist.train, replace(mnist.test, values=values))) == ("fail", "fail")
