"""Data far from zero: what float32 resolves, what is subtracted, and what is refused."""

import numpy as np
import pytest
import torch

from vae_pyro.data.dataset import as_split
from vae_pyro.data.resolution import offsets, require_observed, require_resolution, steps_of

_RANDOM = np.random.default_rng(0)


def test_steps_are_counted_at_the_magnitude_of_the_column() -> None:
    z = _RANDOM.standard_normal(1000)
    steps = steps_of(np.c_[z, z + 1e5, z + 1.7e9, np.full(1000, 0.1), np.full(1000, 1.7e9)])
    assert steps[0] > 1e6
    assert 100 < steps[1] < 200  # the spacing of float32 is 2^-7 there
    assert steps[2] < 0.01
    assert np.isinf(steps[3:]).all()  # constants lose nothing


def test_offsets_are_those_of_columns_that_need_them_and_whole_where_these_are() -> None:
    z = _RANDOM.standard_normal(1000)
    x = np.c_[z, z + 1e7, np.round(100 * z) + 1.7e9, np.where(z > 0, np.nan, z + 1e7)]
    found = offsets(x)
    assert found[0] == 0
    assert abs(found[1] - 1e7) < 1
    assert found[2] == np.round(found[2])
    assert abs(found[2] - 1.7e9) < 100
    assert abs(found[3] - 1e7) < 2


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_what_float32_cannot_resolve_is_refused_by_the_name_of_the_column(kind: type) -> None:
    x = np.c_[_RANDOM.integers(0, 100, 500), 1_700_000_000 + _RANDOM.integers(0, 100, 500)].astype(kind)
    with pytest.raises(ValueError, match=r"column 'time' lies at 1.7e\+09 .* subtract"):
        require_resolution(as_split(x), torch.float32, ["age", "time"])
    with pytest.raises(ValueError, match="column 1 lies"):
        require_resolution(as_split(x), torch.float32)
    require_resolution(as_split(x), torch.float64)
    require_resolution(as_split(x[:, :1]), torch.float32)


def test_what_is_hidden_does_not_count() -> None:
    x = _RANDOM.standard_normal((500, 1))
    mask = np.ones_like(x, dtype=bool)
    x[:10], mask[:10] = 1e12, False
    require_resolution(as_split(x, torch.from_numpy(mask)), torch.float32)


def test_columns_without_a_value_are_refused_by_name() -> None:
    x = _RANDOM.standard_normal((50, 3))
    x[:, 1] = np.nan
    with pytest.raises(ValueError, match="no training datum has a value in column 'b': there is nothing to learn"):
        require_observed(as_split(x), ["a", "b", "c"])
    require_observed(as_split(x))  # an array may hide a column on purpose
    x[7, 1] = 0.5
    require_observed(as_split(x), ["a", "b", "c"])
