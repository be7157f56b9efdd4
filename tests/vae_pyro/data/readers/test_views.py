"""Views of a store: some of its rows, and rows that are changed, which read nothing twice to know what they reach."""

from pathlib import Path

import numpy as np
import pytest

from tests.vae_pyro.data.makers import MAKERS, Maker, array_file, random_bytes, zarr_array
from vae_pyro.data.readers.store import Array, Extent
from vae_pyro.data.readers.views import Between, Changed
from vae_pyro.data.streams.shares import Share


@pytest.mark.parametrize("make", MAKERS)
def test_consecutive_rows_are_those_of_the_store(make: Maker, tmp_path: Path) -> None:
    store = make(tmp_path)
    view = Between(store, 7, 50)
    assert (len(view), view.x_shape, view.dtype, view.kind, view.top) == (
        43,
        store.x_shape,
        store.dtype,
        store.kind,
        store.top,
    )
    whole = store.read(0, len(store))
    np.testing.assert_array_equal(view.read(3, 20), whole[10:27])
    np.testing.assert_array_equal(view.rows(np.array([42, 0, 5])), whole[[49, 7, 12]])
    np.testing.assert_array_equal(view.ids(np.array([0, 42])), [7, 49])
    labels = store.labels(np.arange(len(store)))
    found = view.labels(np.arange(3))
    assert (found is None) == (labels is None)
    if found is not None and labels is not None:
        np.testing.assert_array_equal(found, labels[7:10])
    assert view.extent == store.extent  # of the whole
    if view.edges is not None:
        assert (view.edges[0], view.edges[-1]) == (0, 43)
    again = Between(Between(store, 2, 60), 5, 48)
    np.testing.assert_array_equal(again.read(0, 43), view.read(0, 43))
    assert len({store.digest(), view.digest(), Between(store, 7, 49).digest()}) == 3


def _doubled(values: Array, index: Array) -> Array:
    return 2.0 * values + index.reshape(-1, *[1] * (values.ndim - 1))


def test_changed_rows_depend_on_their_numbers_alone(tmp_path: Path) -> None:
    values = random_bytes(300, 4)
    store = array_file(tmp_path, values)
    changed = Changed(store, _doubled, dtype=np.float64, extent=Extent(0.0, 810.0, True), about="doubled")
    expected = _doubled(values, np.arange(300))
    np.testing.assert_array_equal(changed.read(10, 40), expected[10:40])
    np.testing.assert_array_equal(changed.rows(np.array([250, 3])), expected[[250, 3]])
    assert (changed.extent.high, changed.top, changed.dtype) == (810.0, None, np.float64)
    np.testing.assert_array_equal(changed.borders, store.borders)
    share = Share(changed, "test", test=0.3, validation=0.0, seed=2)
    np.testing.assert_array_equal(share.read(0, len(share)), expected[share.ids(np.arange(len(share)))])


def test_a_view_cannot_be_streamed_where_its_store_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = zarr_array(tmp_path)
    Between(store, 0, 10).require_streaming()
    monkeypatch.setattr("vae_pyro.data.readers.chunks._MOST_BYTES", 10)
    with pytest.raises(ValueError, match="which can only be read whole"):
        Between(store, 0, 10).require_streaming()
