"""``.npz`` files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vae_pyro import DataConfig, load_data
from vae_pyro.data.dataset import load_all


def test_a_stored_mask(tmp_path: Path) -> None:
    x, seen = np.arange(120, dtype=np.uint8).reshape(40, 3), np.arange(120).reshape(40, 3) % 5 > 0
    np.savez(tmp_path / "m.npz", x=x, mask=seen)
    data = load_data(tmp_path / "m.npz")
    for part in (data.train, data.validation, data.test):
        assert part.mask is not None
        np.testing.assert_array_equal(part.mask.numpy(), seen[part.ids.numpy()])
        np.testing.assert_array_equal(part.values.numpy(), x[part.ids.numpy()])
    assert data.facts.missing == pytest.approx(float((~data.train.mask).double().mean()), abs=1e-12)  # type: ignore[operator]
    np.savez(tmp_path / "bad.npz", x=x, mask=seen[:, :2])
    with pytest.raises(ValueError, match=r"mask is bool \(40, 2\); expected: a boolean for each .* of x, \(40, 3\)"):
        load_data(tmp_path / "bad.npz")


def test_arrays_by_name(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "xy.npz", x=x, y=np.arange(50))
    np.savez(tmp_path / "one.npz", anything=x)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    labelled = load_data(tmp_path / "xy.npz").test
    assert labelled.labels is not None
    assert torch.equal(labelled.labels, labelled.ids)
    np.testing.assert_array_equal(load_all(DataConfig(source=str(tmp_path / "one.npz"))).stored(slice(None)), x)
    with pytest.raises(ValueError, match="holds the arrays a, b; name the data 'x'"):
        load_data(tmp_path / "two.npz")
    np.savez(tmp_path / "short.npz", x=x, y=np.arange(9))
    with pytest.raises(ValueError, match=r"y has shape \(9,\), x has 50 rows"):
        load_data(tmp_path / "short.npz")
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.npz"):
        load_data(tmp_path / "absent.npz")


def test_names_of_classes_and_files_that_are_cut(tmp_path: Path) -> None:
    np.savez(tmp_path / "words.npz", x=np.zeros((20, 2)), y=np.array(["b", "a"] * 10))
    labels = load_data(tmp_path / "words.npz").test.labels
    assert labels is not None
    assert sorted(labels.unique().tolist()) == [0, 1]
    (tmp_path / "cut.npz").write_bytes((tmp_path / "words.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot read .*cut.npz"):
        load_data(tmp_path / "cut.npz")
