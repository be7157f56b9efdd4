"""Data sets: fixed splits and their facts, what a user holds as a split, all of a source as one split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from vae_pyro import DataConfig, Split, load_data
from vae_pyro.data.dataset import as_split, load_all
from vae_pyro.data.split import visible


def digits(**options: Any) -> Any:
    return load_data("digits", **options)


def test_the_split_is_fixed_disjoint_and_complete() -> None:
    data, again, other = digits(), digits(), digits(seed=1)
    parts = [set(getattr(data, name).ids.tolist()) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1797
    assert torch.equal(data.test.ids, again.test.ids)
    assert not torch.equal(data.test.ids, other.test.ids)
    assert data.facts.sizes == {"train": 1294, "validation": 144, "test": 359}
    assert data.facts.fingerprint == again.facts.fingerprint != other.facts.fingerprint
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert torch.equal(data.test.labels, torch.from_numpy(bunch.target)[data.test.ids])
    x, _ = data.test.batch(slice(None))
    np.testing.assert_allclose(x[:, 0].numpy() * 16, bunch.images[data.test.ids], atol=1e-5)


def test_scale_and_facts() -> None:
    unit, raw = digits(), digits(scale="none")
    assert unit.facts.range == (0.0, 1.0)
    assert unit.train.summary().step == 1 / 16
    assert raw.facts.range == (0.0, 16.0)
    assert raw.facts.integral
    assert raw.train.summary().step == 1.0
    assert load_data("breast_cancer").facts.columns[0] == "mean radius"
    assert load_data("moons").x_shape == load_data("pinwheel").x_shape == (2,)


def test_plain_arrays_and_masks() -> None:
    assert len(as_split(np.zeros((3, 2)))) == 3
    assert as_split(torch.zeros(3, 2), torch.ones(3, 2)).mask is not None
    with pytest.raises(ValueError, match=r"data of shape \(datum, \*x_shape\) expected, got \(3,\)"):
        as_split(np.zeros(3))
    with pytest.raises(ValueError, match=r"mask has shape \(3, 1\), the data \(3, 2\)"):
        as_split(np.zeros((3, 2)), np.ones((3, 1)))
    holes = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    assert Split(holes, mask=~holes.isnan()).summary().high == 3.0
    with pytest.raises(ValueError, match="1 values are not finite, the first nan at \\(0, 1\\); pass a mask"):
        Split(holes).summary()


def test_unsigned_integers_are_read_as_int64() -> None:
    assert as_split(np.zeros((3, 2), np.uint16)).summary().high == 0


def test_an_element_that_is_nan_is_not_observed() -> None:
    holes = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    mask = as_split(holes).mask
    assert mask is not None
    assert mask.tolist() == [[True, False], [True, True]]
    joined = as_split(holes, [[False, True], [True, True]]).mask
    assert joined is not None
    assert joined.tolist() == [[False, False], [True, True]]
    assert as_split(torch.ones(2, 2)).mask is None
    x, given = as_split(holes).batch(slice(0, 1))
    assert visible(x, given).isnan().tolist() == [[False, True]]
    with pytest.raises(ValueError, match="none of 2 data has a value that is observed"):
        as_split(holes * torch.nan).summary()


def test_a_whole_source_as_one_split() -> None:
    everything = load_all(DataConfig(source="digits", binarize="dynamic"))
    assert len(everything) == 1797
    assert set(everything.values.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_value_that_is_not_finite_is_named_by_its_place_in_the_source(seed: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    x[17, 2] = np.inf
    np.save(tmp_path / "x.npy", x)
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_array(x))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match=r"1 values are not finite, the first inf at \(17, 2\)"):
            load_data(tmp_path / name, seed=seed)
