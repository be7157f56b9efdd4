"""Labels that are given to model and guide."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vae_pyro.data.makers import zarr_array
from vae_pyro import load_data
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.dataset import as_split


def digits(**options: Any) -> Any:
    return load_data("digits", **options)


def test_labels_that_are_given() -> None:
    everything = digits(given_labels="all")
    for part in (everything.train, everything.validation, everything.test):
        assert torch.equal(part.y, part.labels)
    some, again, other = (digits(given_labels=50, seed=seed).train for seed in (0, 0, 1))
    known = some.y >= 0
    assert torch.equal(some.y[known], some.labels[known])
    assert torch.bincount(some.y[known]).tolist() == [5] * 10
    assert torch.equal(some.y, again.y)
    assert not torch.equal(some.ids[known], other.ids[other.y >= 0])
    assert digits(given_labels=50).facts.given_labels == 50
    assert bool((digits(given_labels=50).test.y == -1).all())
    assert digits(given_labels=50).facts.fingerprint != digits().facts.fingerprint
    (x,), given = some.observe(*some.raw(torch.arange(7), lambda count: torch.zeros(count, dtype=torch.int32)))
    assert x.shape == (7, 1, 8, 8)
    assert torch.equal(given["y"], some.y[:7])
    assert torch.equal(some.take(slice(3, 9)).y, some.y[3:9])
    with pytest.raises(ValueError, match="given_labels=25 is no multiple of the 10 classes"):
        digits(given_labels=25)
    with pytest.raises(ValueError, match="requires 200 training data of class 0, which has"):
        digits(given_labels=2000)
    with pytest.raises(ValueError, match=r"y holds an integer for each of 3 data, got torch.int64 \(2,\)"):
        as_split(np.zeros((3, 2)), y=[0, 1])


def test_streamed_data_are_given_labels(tmp_path: Path) -> None:
    zarr_array(tmp_path)
    for given, known in (("all", 720), (70, 70)):
        data = load_data(tmp_path / "x.zarr", stream=True, given_labels=given)
        train = data.train
        assert (train.streamed, data.facts.given_labels) == (True, known)
        assert train.y is not None
        assert train.labels is not None
        seen = train.y >= 0
        assert torch.equal(train.y[seen], train.labels[seen])
        assert data.test.y is not None
        assert bool((data.test.y >= 0).all()) == (given == "all")
        for raw in train.epoch(100, 0, BitStream(0)):
            (_, given_), rows = train.observe(*raw), raw[0]
            assert len(rows) == len(given_["y"])
    with pytest.raises(ValueError, match="labelled_share.* are held in memory; pass stream=False"):
        load_data(tmp_path / "x.zarr", stream=True, given_labels=70, labelled_share=0.5)
    np.save(tmp_path / "x.npy", np.zeros((40, 2)))
    with pytest.raises(ValueError, match="given_labels=5 requires labels, and .*x.npy' has none"):
        load_data(tmp_path / "x.npy", given_labels=5)
