"""Other data as those of a run: by names of columns and classes, and on its scale."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vae_pyro import DataConfig, Split, load_data
from vae_pyro.data.dataset import load_all


def test_other_data_have_the_classes_of_the_run_by_name(tmp_path: Path) -> None:
    """Three of ten classes, in another order, keep their codes; names that the run does not know are refused."""
    x = np.random.default_rng(0).normal(size=(30, 2))
    names = np.array(["ant", "bee", "cat"] * 10)
    np.savez(tmp_path / "run.npz", x=x, y=names)
    facts = DataConfig(source=str(tmp_path / "run.npz")).load().facts
    assert facts.classes == ("ant", "bee", "cat")
    some = names != "ant"
    for text, wanted in ((names[some], [1, 2] * 10), (np.arange(3).repeat(10)[some], None)):
        np.savez(tmp_path / "other.npz", x=x[some], y=text)
        other = load_all(DataConfig(source=str(tmp_path / "other.npz")), facts)
        assert (None if other.labels is None else other.labels.tolist()) == wanted
    given = load_all(DataConfig(source=str(tmp_path / "run.npz"), given_labels="all"), facts)
    assert given.y is not None
    assert given.y.tolist() == [0, 1, 2] * 10
    np.savez(tmp_path / "other.npz", x=x, y=np.array(["ant", "elk", "cat"] * 10))
    with pytest.raises(ValueError, match="the model knows no class 'elk'; it knows 'ant', 'bee', 'cat'"):
        load_all(DataConfig(source=str(tmp_path / "other.npz")), facts)
    # A run whose labels are numbers takes names that are numbers as these.
    numbered = load_data("digits").facts
    np.savez(tmp_path / "other.npz", x=np.zeros((4, 1, 8, 8), np.uint8), y=np.array(["7", "3", "7", "0"]))
    labels = load_all(DataConfig(source=str(tmp_path / "other.npz")), numbered).labels
    assert labels is not None
    assert labels.tolist() == [7, 3, 7, 0]


def test_other_data_are_on_the_scale_of_the_run(tmp_path: Path) -> None:
    digits = load_data("digits")
    whole = load_all(DataConfig(source="digits"))
    path = tmp_path / "x.npy"
    bytes_ = whole.values.numpy()
    np.save(path, bytes_)
    config = DataConfig(source=str(path))
    assert load_all(config).top == 255
    again = load_all(config, digits.facts)
    assert (again.top, again.space) == (16.0, digits.test.space)
    assert torch.equal(again.batch(slice(0, 9))[0], whole.batch(slice(0, 9))[0])
    np.save(path, np.minimum(bytes_, 1))  # dark, not binary
    assert load_all(config, digits.facts).top == 16.0
    np.save(path, bytes_ / np.float32(16))  # divided already
    divided = load_all(config, digits.facts)
    assert divided.space == digits.test.space
    assert torch.equal(divided.batch(slice(0, 9))[0], whole.batch(slice(0, 9))[0])
    np.save(path, bytes_ * np.uint8(10))
    with pytest.raises(ValueError, match="these data reach 160, and the model's are at most 16"):
        load_all(config, digits.facts)


@pytest.mark.parametrize("stream", [True, False])
def test_columns_come_in_the_order_of_the_run(tmp_path: Path, stream: bool) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    pd.DataFrame(x, columns=["a", "b", "c"]).to_parquet(tmp_path / "run.parquet")
    facts = load_data(tmp_path / "run.parquet").facts
    other = pd.DataFrame(x[:, [2, 0, 1]], columns=["c", "a", "b"]).assign(more=1e9, word="w")
    other.to_parquet(tmp_path / "other.parquet")
    config = DataConfig(source=str(tmp_path / "other.parquet"), stream=stream)
    found = load_all(config, facts)
    assert found.streamed == stream
    np.testing.assert_array_equal(found.stored(slice(None)), x)
    assert found.summary() == Split(torch.from_numpy(x)).summary()  # columns that are passed over do not count
    other.drop(columns="b").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="the table lacks the column 'b' of the model's data; it has 'c', 'a', 'more'"):
        load_all(config, facts)


def test_streamed_images_are_on_the_scale_of_the_run(tmp_path: Path) -> None:
    digits = load_data("digits")
    bits = (np.random.default_rng(0).random((60, 1, 8, 8)) < 0.5).astype(np.uint8)
    np.save(tmp_path / "x.npy", bits)
    for stream in (True, False):
        found = load_all(DataConfig(source=str(tmp_path / "x.npy"), stream=stream), digits.facts)
        assert (found.top, found.space, found.streamed) == (16.0, digits.facts.space, stream)
        np.testing.assert_array_equal(found.batch(slice(None))[0], bits / np.float32(16))
