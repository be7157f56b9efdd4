"""Named data sets, made or downloaded."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.vae_pyro.data.readers.test_idx import write_idx
from vae_pyro import load_data
from vae_pyro.data.datasets import DATASETS, without_downloads
from vae_pyro.data.readers.arrays import ArrayStore


def test_absent_downloads_say_where_to_put_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def refuse(root: str, train: bool, download: bool, **options: Any) -> None:
        if not download:
            raise RuntimeError("Dataset not found.")
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "KMNIST", refuse)
    with pytest.raises(
        FileNotFoundError, match=r"'kmnist' is not under .*\(no network\); put torchvision's files .*--data-root"
    ):
        load_data("kmnist", root=str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "emnist"])
def test_torchvision_sets_keep_their_own_test_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    class Stored:
        def __init__(self, root: str, train: bool, download: bool, **options: Any) -> None:
            size = 20 if train else 10
            self.data = torch.arange(size * 6, dtype=torch.uint8).reshape(size, 2, 3)
            self.targets = torch.arange(size)

    Stored.__name__ = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist": "EMNIST"}[name]
    monkeypatch.setattr(torchvision.datasets, Stored.__name__, Stored)
    data = load_data(name, root=str(tmp_path))
    assert data.facts.sizes == {"train": 18, "validation": 2, "test": 10}
    assert data.x_shape == ((1, 3, 2) if name == "emnist" else (1, 2, 3))  # EMNIST is stored lying on its side
    assert data.test.values[0, 0].flatten()[1] == (3 if name == "emnist" else 1)
    assert data.test.labels.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST"), ("emnist", "EMNIST")],
)
def test_stored_sets_are_those_of_torchvision_without_its_import(
    name: str, class_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    raw, random = tmp_path / class_name / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, size in (("train", 20), ("t10k" if name != "emnist" else "test", 10)):
        prefix = "emnist-balanced-" if name == "emnist" else ""
        write_idx(raw / f"{prefix}{part}-images-idx3-ubyte", random.integers(0, 256, (size, 2, 3), dtype=np.uint8))
        write_idx(raw / f"{prefix}{part}-labels-idx1-ubyte", random.integers(0, 10, size, dtype=np.uint8))
    with monkeypatch.context() as patched:
        patched.setattr("vae_pyro.data.datasets._stored", lambda folder, part: None)
        theirs = load_data(name, root=str(tmp_path))

    def unused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("torchvision is asked for a set that is there")

    with monkeypatch.context() as patched:
        patched.setattr(torchvision.datasets, class_name, unused)
        ours = load_data(name, root=str(tmp_path))
    for split in ("train", "validation", "test"):
        a, b = getattr(ours, split), getattr(theirs, split)
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.labels, b.labels)
        assert (a.values.dtype, a.labels.dtype) == (b.values.dtype, b.labels.dtype)
    next(raw.glob("*train-labels*")).write_bytes(b"damaged")
    with monkeypatch.context() as patched:
        patched.setattr(torchvision.datasets, class_name, unused)
        with pytest.raises(AssertionError, match="torchvision is asked"):
            load_data(name, root=str(tmp_path))


def test_omniglot_is_reduced_and_inverted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    class Stored:
        def __init__(self, root: str, background: bool, download: bool) -> None:
            self.size = 12 if background else 5

        def __iter__(self) -> Any:
            return iter((Image.new("L", (105, 105), 255), index) for index in range(self.size))

    monkeypatch.setattr(torchvision.datasets, "Omniglot", Stored)
    data = load_data("omniglot", root=str(tmp_path), validation_fraction=0)
    assert data.facts.sizes == {"train": 12, "validation": 0, "test": 5}
    assert data.x_shape == (1, 28, 28)
    assert int(data.train.values.max()) == 0  # white paper is no ink


@pytest.mark.mnist
def test_mnist_as_it_is() -> None:
    data = load_data("mnist", validation_fraction=0)
    assert data.facts.sizes == {"train": 60000, "validation": 0, "test": 10000}
    assert int(data.train.values.sum(dtype=torch.int64)) == 1567298545  # every pixel of the training images
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_reading_a_run_makes_no_folder_and_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def absent(root: str, train: bool, download: bool, **options: Any) -> None:
        assert not download
        raise RuntimeError("Dataset not found.")

    monkeypatch.setattr(torchvision.datasets, "KMNIST", absent)
    with without_downloads(), pytest.raises(FileNotFoundError, match="reading a run downloads nothing; name the fold"):
        load_data("kmnist", root=str(tmp_path / "made"))
    assert not (tmp_path / "made").exists()


def test_making_a_data_set_leaves_generators_and_environment() -> None:
    """As the first import of scikit-learn would change them."""

    @DATASETS.register("disturbing")
    def disturbing(root: Path) -> ArrayStore:
        os.environ["DISTURBED"] = "1"
        return ArrayStore("disturbing", np.full((30, 2), random.random()))

    before = dict(os.environ), random.getstate()
    try:
        load_data("disturbing")
    finally:
        DATASETS.unregister("disturbing")
    assert before == (dict(os.environ), random.getstate())
