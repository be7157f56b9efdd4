"""Rows dealt into shares: disjoint, complete, exact in size, spread over the source."""

from pathlib import Path

import numpy as np
import pytest

from tests.vae_pyro.data.makers import SIZE, Maker, array_file, items, parquet_folder, random_bytes, zarr_array
from vae_pyro.data.streams.shares import Share


@pytest.mark.parametrize("make", [array_file, zarr_array, parquet_folder, items])
@pytest.mark.parametrize(("test", "validation"), [(0.2, 0.1), (0.01, 0.0), (0.5, 0.9)])
def test_shares_are_disjoint_complete_and_exact(make: Maker, test: float, validation: float, tmp_path: Path) -> None:
    store = make(tmp_path)
    share = {
        name: Share(store, name, test=test, validation=validation, seed=5) for name in ("test", "validation", "train")
    }
    num_test = round(test * SIZE)
    num_validation = round(validation * (SIZE - num_test))
    assert len(share["test"]) == num_test
    assert len(share["validation"]) == num_validation
    ids = {name: one.ids(np.arange(len(one))) for name, one in share.items()}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(ids.values()))), np.arange(SIZE))
    whole = store.read(0, SIZE)
    for name, one in share.items():
        assert (np.diff(ids[name]) > 0).all()  # in the order of the store
        np.testing.assert_array_equal(one.read(0, len(one)), whole[ids[name]])
        half = np.arange(len(one))[::-2]
        np.testing.assert_array_equal(one.rows(half), whole[ids[name][half]])
        if one.edges is not None:
            assert one.edges[0] == 0
            assert one.edges[-1] == len(one)
    other = Share(store, "test", test=test, validation=validation, seed=6)
    assert not np.array_equal(other.ids(np.arange(num_test)), ids["test"])
    assert other.digest() != share["test"].digest()


def test_shares_are_spread_over_the_rows_and_random(tmp_path: Path) -> None:
    size, test = 100_000, 0.2
    store = array_file(tmp_path, random_bytes(size, 2))
    chosen = np.zeros(size, bool)
    share = Share(store, "test", test=test, validation=0.1, seed=0)
    chosen[share.ids(np.arange(len(share)))] = True
    # Every 256 rows give their part, to rounding, whatever the order of the source.
    counts = np.add.reduceat(chosen, np.arange(0, size - 256, 256))
    assert np.abs(counts[:-1] - test * 256).max() <= 1
    # Within them the choice is random: neighbours are chosen together as often as at random; 5 standard errors.
    together = (chosen[1:] & chosen[:-1]).mean()
    expected = test * (test * 256 - 1) / 255
    assert abs(together - expected) < 5 * np.sqrt(expected / size)
