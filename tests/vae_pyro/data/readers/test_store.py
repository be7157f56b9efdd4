"""Rows of every format are those that were written."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vae_pyro.data.makers import (
    MAKERS,
    SIZE,
    Maker,
    array_file,
    image_folder,
    parquet_folder,
    random_bytes,
)
from vae_pyro.data.facts import About
from vae_pyro.data.readers import store as stores


@pytest.mark.parametrize("make", MAKERS)
def test_any_rows_are_what_was_written(make: Maker, tmp_path: Path) -> None:
    store = make(tmp_path)
    if make is image_folder:
        whole = random_bytes(60, 5, 6)[np.r_[0:60:2, 1:60:2]][:, None]  # a class after the other, by name
        labels = np.repeat([0, 1], 30)
        assert store.about == About(classes=("even", "odd"))
    else:
        whole = random_bytes(SIZE, 4).astype(float) if make is parquet_folder else random_bytes(SIZE, 3, 2)
        labels = None if make in (array_file, parquet_folder) else np.arange(SIZE) % 7
    assert (len(store), store.x_shape, store.dtype) == (len(whole), whole.shape[1:], whole.dtype)
    random = np.random.default_rng(1)
    for _ in range(30):
        start, stop = sorted(random.integers(0, len(whole) + 1, 2).tolist())
        np.testing.assert_array_equal(store.read(start, stop), whole[start:stop])
        index = random.integers(0, len(whole), random.integers(1, 50))  # with repetitions, in any order
        np.testing.assert_array_equal(store.rows(index), whole[index])
        assert (store.labels(index) is None) == (labels is None)
        if labels is not None:
            np.testing.assert_array_equal(store.labels(index), labels[index])
    assert (store.extent.low, store.extent.high, store.extent.integral) == (whole.min(), whole.max(), True)
    assert store.top == (None if make is parquet_folder else 255)
    assert not store.two_levels
    again = pickle.loads(pickle.dumps(store))
    assert again.digest() == store.digest()
    np.testing.assert_array_equal(again.read(0, 9), whole[:9])


@pytest.mark.parametrize("kind", ["?", "u1", "u2", "i4", "i8", "f2", "f4", ">f4", ">i2", "f8"])
def test_numbers_keep_their_values_in_types_that_torch_has(kind: str, tmp_path: Path) -> None:
    values = random_bytes(50, 6).astype(kind)
    store = array_file(tmp_path, values)
    found = store.read(3, 40)
    np.testing.assert_array_equal(found, values[3:40])
    assert torch.from_numpy(found).dtype == torch.from_numpy(store.rows(np.array([4, 1]))).dtype
    assert found.dtype == store.dtype
    # What reading into memory makes of them.
    from vae_pyro import load_data

    assert torch.from_numpy(found).dtype == load_data(tmp_path / "x.npy").train.values.dtype


def test_full_intensity_and_levels(tmp_path: Path) -> None:
    bits = random_bytes(500, 4, 4) % 2
    binary = array_file(tmp_path, bits)
    assert (binary.top, binary.two_levels) == (1, True)
    late = bits.copy()
    late[-1, -1, -1] = 2
    grey = array_file(tmp_path, late)
    assert (grey.top, grey.two_levels) == (255, False)
    assert array_file(tmp_path, late * 0 + 255 * bits).two_levels
    assert array_file(tmp_path, bits.astype(np.float32)).top is None


def test_a_value_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_PASS_BYTES", 1000)  # many blocks
    values = np.random.default_rng(0).normal(size=(700, 3))
    assert not array_file(tmp_path, values).extent.integral
    values[612, 1], values[690, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"x.npy': 2 values are not finite, the first nan at \(612, 1\); impute them"):
        _ = array_file(tmp_path, values).extent


def test_a_digest_follows_the_contents(tmp_path: Path) -> None:
    values = random_bytes(SIZE, 3, 2)
    digest = array_file(tmp_path, values).digest()
    (tmp_path / "other").mkdir()
    assert array_file(tmp_path / "other", values).digest() == digest  # another place, another time
    assert array_file(tmp_path, values[:-1]).digest() != digest
    values[-1, 0, 0] ^= 1
    assert array_file(tmp_path, values).digest() != digest
