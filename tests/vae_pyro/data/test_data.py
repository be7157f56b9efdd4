"""Splits, binarization, sources and their refusals."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from vae_pyro import DataConfig, Split, load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.data import split as splits_module
from vae_pyro.data.dataset import as_split, load_all
from vae_pyro.data.split import fingerprint, visible


def digits(**options: Any) -> Any:
    return load_data("digits", **options)


def test_the_split_is_fixed_disjoint_and_complete() -> None:
    data, again, other = digits(), digits(), digits(seed=1)
    parts = [set(getattr(data, name).ids.tolist()) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1797
    assert torch.equal(data.test.ids, again.test.ids)
    assert not torch.equal(data.test.ids, other.test.ids)
    assert data.facts["sizes"] == {"train": 1294, "validation": 144, "test": 359}
    assert data.facts["fingerprint"] == again.facts["fingerprint"] != other.facts["fingerprint"]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert torch.equal(data.test.labels, torch.from_numpy(bunch.target)[data.test.ids])
    x, _ = data.test.batch(slice(None))
    np.testing.assert_allclose(x[:, 0].numpy() * 16, bunch.images[data.test.ids], atol=1e-5)


def test_scale_and_facts() -> None:
    unit, raw = digits(), digits(scale="none")
    assert unit.facts["range"] == [0.0, 1.0]
    assert unit.train.summary().step == 1 / 16
    assert raw.facts["range"] == [0.0, 16.0]
    assert raw.facts["integral"]
    assert raw.train.summary().step == 1.0
    assert load_data("breast_cancer").facts["columns"][0] == "mean radius"
    assert load_data("moons").x_shape == load_data("pinwheel").x_shape == (2,)


def test_dynamic_binarization_is_new_at_every_call_and_fixed_in_evaluation() -> None:
    data = digits(binarize="dynamic")
    with seeded(0):
        first, _ = data.train.batch(slice(0, 200))
        second, _ = data.train.batch(slice(0, 200))
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    for split in (data.test, data.validation, data.split("train")):
        one, _ = split.batch(slice(None))
        two, _ = split.batch(slice(None))
        assert torch.equal(one, two)
        assert set(one.unique().tolist()) == {0.0, 1.0}
    assert "binarised once with seed 0" in data.facts["evaluation"]
    assert torch.equal(digits(binarize="dynamic").test.values, data.test.values)
    assert torch.equal(digits(binarize="static").test.values, data.test.values)


def test_binarization_draws_have_the_right_probability() -> None:
    data = digits(binarize="dynamic")
    grey, _ = digits().train.batch(slice(None))
    with seeded(1):
        mean = torch.stack([data.train.batch(slice(None))[0] for _ in range(100)]).mean(0)
    spread = (grey * (1 - grey) / 100).sqrt()
    assert torch.equal(mean[spread == 0], grey[spread == 0])
    z = ((mean - grey) / spread)[spread > 0]
    # The mean of n z-scores of variance 1; 5 standard errors.
    assert abs(float(z.mean())) < 5 / len(z) ** 0.5
    assert float(z.var()) == pytest.approx(1, abs=0.05)


def test_static_and_threshold() -> None:
    static, cut = digits(binarize="static"), digits(binarize="threshold")
    assert torch.equal(static.train.batch(slice(None))[0], static.train.batch(slice(None))[0])
    grey, _ = digits().test.batch(slice(None))
    assert torch.equal(cut.test.batch(slice(None))[0], (grey >= 0.5).float())
    assert cut.facts["evaluation"] == "no random element"


def test_dequantized_data_are_a_density_on_the_unit_interval() -> None:
    data = digits(dequantize=True)
    x, _ = data.test.batch(slice(None))
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() <= 1
    raw, _ = digits(scale="none").test.batch(slice(None))
    assert torch.equal((x * 17).floor().clamp(max=16), raw)
    assert data.train.summary().step is None
    assert data.facts["space"] == "(stored values + uniform noise) / 17"
    with pytest.raises(ValueError, match="exclude each other"):
        digits(dequantize=True, binarize="static")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binarise": "dynamic"}, "binarise: is not a known key .*known keys: source, root"),
        ({"binarize": "soft"}, "binarize"),
        ({"validation_fraction": 1.0}, "validation_fraction: Input should be less than 1, got 1.0"),
        ({"test_fraction": 0.0}, "test_fraction"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        digits(**options)


def test_tables_cannot_be_binarized() -> None:
    with pytest.raises(ValueError, match=r"binarize wants intensities, got \[0, 4254\] without a known top"):
        load_data("breast_cancer", binarize="dynamic")


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'digit'; did you mean 'digits'\\? choose from digits, "):
        load_data("digit")
    with pytest.raises(FileNotFoundError, match="no file .*absent.npy"):
        load_data(tmp_path / "absent.npy")
    with pytest.raises(ValueError, match=r"expected a folder of images or \.npy, \.npz, \.csv, \.parquet"):
        load_data(tmp_path / "data.xls")
    with pytest.raises(ValueError, match="unknown split 'dev'; choose from train, validation, test"):
        digits().split("dev")
    with pytest.raises(ValueError, match="split 'validation' holds no data"):
        digits(validation_fraction=0).split("validation")


def test_arrays(tmp_path: Path) -> None:
    with seeded(0):
        x = torch.randn(50, 3).numpy()
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "xy.npz", x=x, y=np.arange(50))
    np.savez(tmp_path / "two.npz", a=x, b=x)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
    data = load_data(tmp_path / "x.npy")
    assert data.x_shape == (3,)
    np.testing.assert_array_equal(data.train.values.numpy(), x[data.train.ids])
    labelled = load_data(tmp_path / "xy.npz")
    assert torch.equal(labelled.test.labels, labelled.test.ids)
    with pytest.raises(ValueError, match="holds the arrays a, b; name the data 'x'"):
        load_data(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="cannot read .*objects.npy.*allow_pickle"):
        load_data(tmp_path / "objects.npy")
    with pytest.raises(ValueError, match=r"shape \(4,\); wanted are numbers of shape \(datum"):
        load_data(tmp_path / "flat.npy")
    with pytest.raises(ValueError, match="cannot read .*cut.npy.*: Failed to read all data"):
        load_data(tmp_path / "cut.npy")
    np.save(tmp_path / "one.npy", x[:1])
    with pytest.raises(ValueError, match="1 data are too few"):
        load_data(tmp_path / "one.npy")


def test_tables_take_numeric_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(30), "name": ["n"] * 30, "b": np.linspace(0, 1, 30)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        data = load_data(tmp_path / name)
        assert data.facts["columns"] == ["a", "b"]
        assert data.facts["columns_left_out"] == ["name"]
        assert data.x_shape == (2,)
    frame[["name"]].to_csv(tmp_path / "words.csv", index=False)
    with pytest.raises(ValueError, match="30 rows and no numeric column"):
        load_data(tmp_path / "words.csv")
    frame.loc[3, "b"] = np.nan
    frame.to_csv(tmp_path / "holes.csv", index=False)
    data = load_data(tmp_path / "holes.csv")
    hidden = {name: getattr(data, name).mask for name in ("train", "validation", "test")}
    assert sum(int((~mask).sum()) for mask in hidden.values() if mask is not None) == 1
    frame.loc[3, "b"] = np.inf
    frame.to_csv(tmp_path / "holes.csv", index=False)
    with pytest.raises(ValueError, match="1 values are not finite"):
        load_data(tmp_path / "holes.csv")


def test_folders_of_images(tmp_path: Path) -> None:
    with seeded(0):
        pixels = torch.randint(0, 256, (12, 5, 6), dtype=torch.uint8).numpy()
    for index, image in enumerate(pixels):
        folder = tmp_path / "pictures" / ("even" if index % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    data = load_data(tmp_path / "pictures")
    assert data.x_shape == (1, 5, 6)
    assert data.facts["classes"] == ["even", "odd"]
    first_even = data.train.take(data.train.labels == 0)
    stored = pixels[[0, 2, 4, 6, 8, 10]]
    np.testing.assert_array_equal(first_even.values[0, 0].numpy(), stored[int(first_even.ids[0])])
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "pictures" / "odd" / "99.png")
    with pytest.raises(ValueError, match=r"images differ: .* is \(1, 5, 6\), .* is \(1, 5, 7\)"):
        load_data(tmp_path / "pictures")
    (tmp_path / "pictures" / "odd" / "99.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot read the image .*99.png"):
        load_data(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no image"):
        load_data(tmp_path / "empty")


def test_colour_images(tmp_path: Path) -> None:
    for index in range(6):
        Image.new("RGB", (4, 3), (index, 2 * index, 255)).save(tmp_path / f"{index}.png")
    data = load_data(tmp_path)
    assert data.x_shape == (3, 3, 4)
    x, _ = data.test.batch(slice(0, 1))
    torch.testing.assert_close(x[0, 2], torch.ones(3, 4))


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
    assert data.facts["sizes"] == {"train": 18, "validation": 2, "test": 10}
    assert data.x_shape == ((1, 3, 2) if name == "emnist" else (1, 2, 3))  # EMNIST is stored lying on its side
    assert data.test.values[0, 0].flatten()[1] == (3 if name == "emnist" else 1)
    assert data.test.labels.tolist() == list(range(10))


def test_omniglot_is_reduced_and_inverted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    class Stored:
        def __init__(self, root: str, background: bool, download: bool) -> None:
            self.size = 12 if background else 5

        def __iter__(self) -> Any:
            return iter((Image.new("L", (105, 105), 255), index) for index in range(self.size))

    monkeypatch.setattr(torchvision.datasets, "Omniglot", Stored)
    data = load_data("omniglot", root=str(tmp_path), validation_fraction=0)
    assert data.facts["sizes"] == {"train": 12, "validation": 0, "test": 5}
    assert data.x_shape == (1, 28, 28)
    assert int(data.train.values.max()) == 0  # white paper is no ink


@pytest.mark.mnist
def test_mnist_as_it_is() -> None:
    data = load_data("mnist", validation_fraction=0)
    assert data.facts["sizes"] == {"train": 60000, "validation": 0, "test": 10000}
    assert int(data.train.values.sum(dtype=torch.int64)) == 1567298545  # every pixel of the training images
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_plain_arrays_and_masks() -> None:
    assert len(as_split(np.zeros((3, 2)))) == 3
    assert as_split(torch.zeros(3, 2), torch.ones(3, 2)).mask is not None
    with pytest.raises(ValueError, match=r"data of shape \(datum, \*x_shape\) wanted, got \(3,\)"):
        as_split(np.zeros(3))
    with pytest.raises(ValueError, match=r"mask has shape \(3, 1\), the data \(3, 2\)"):
        as_split(np.zeros((3, 2)), np.ones((3, 1)))
    holes = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    assert Split(holes, mask=~holes.isnan()).summary().high == 3.0
    with pytest.raises(ValueError, match="1 values are not finite, the first nan at \\(0, 1\\); pass a mask"):
        Split(holes).summary()


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


def test_a_stored_mask(tmp_path: Path) -> None:
    x, seen = np.arange(120, dtype=np.uint8).reshape(40, 3), np.arange(120).reshape(40, 3) % 5 > 0
    np.savez(tmp_path / "m.npz", x=x, mask=seen)
    data = load_data(tmp_path / "m.npz")
    for part in (data.train, data.validation, data.test):
        assert part.mask is not None
        np.testing.assert_array_equal(part.mask.numpy(), seen[part.ids.numpy()])
        np.testing.assert_array_equal(part.values.numpy(), x[part.ids.numpy()])
    assert data.facts["missing"] == pytest.approx(float((~data.train.mask).double().mean()), abs=1e-12)  # type: ignore[operator]
    np.savez(tmp_path / "bad.npz", x=x, mask=seen[:, :2])
    with pytest.raises(ValueError, match=r"mask is bool \(40, 2\); wanted: a boolean for each element of x, \(40, 3\)"):
        load_data(tmp_path / "bad.npz")


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
    assert digits(given_labels=50).facts["given_labels"] == 50
    assert bool((digits(given_labels=50).test.y == -1).all())
    assert digits(given_labels=50).facts["fingerprint"] != digits().facts["fingerprint"]
    (x,), given = some.observe(*some.raw(torch.arange(7), lambda count: torch.zeros(count, dtype=torch.int32)))
    assert x.shape == (7, 1, 8, 8)
    assert torch.equal(given["y"], some.y[:7])
    assert torch.equal(some.take(slice(3, 9)).y, some.y[3:9])
    with pytest.raises(ValueError, match="given_labels=25 is no multiple of the 10 classes"):
        digits(given_labels=25)
    with pytest.raises(ValueError, match="wants 200 training data of class 0, which has"):
        digits(given_labels=2000)
    with pytest.raises(ValueError, match=r"y holds an integer for each of 3 data, got torch.int64 \(2,\)"):
        as_split(np.zeros((3, 2)), y=[0, 1])


def test_a_whole_source_as_one_split() -> None:
    everything = load_all(DataConfig(source="digits", binarize="dynamic"))
    assert len(everything) == 1797
    assert set(everything.values.unique().tolist()) == {0, 1}


def test_other_data_have_the_classes_of_the_run_by_name(tmp_path: Path) -> None:
    """Three of ten classes, in another order, keep their codes; names that the run does not know are refused."""
    x = np.random.default_rng(0).normal(size=(30, 2))
    names = np.array(["ant", "bee", "cat"] * 10)
    np.savez(tmp_path / "run.npz", x=x, y=names)
    facts = DataConfig(source=str(tmp_path / "run.npz")).load().facts
    assert facts["classes"] == ["ant", "bee", "cat"]
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


def test_bytes_of_zero_and_one_are_binary_already(tmp_path: Path) -> None:
    with seeded(0):
        x = (torch.rand(40, 4, 4) < 0.4).numpy()
    for name, values in (("bool.npy", x), ("byte.npy", x.astype(np.uint8))):
        np.save(tmp_path / name, values)
        data = load_data(tmp_path / name)
        assert data.facts["range"] == [0.0, 1.0]
        assert data.train.summary().integral
        np.testing.assert_array_equal(data.test.batch(slice(None))[0].numpy(), x[data.test.ids])


def test_deep_images_keep_their_levels(tmp_path: Path) -> None:
    for index in range(6):
        Image.fromarray(np.full((3, 3), 10_000 * index, np.uint16)).save(tmp_path / f"{index}.png")
    data = load_data(tmp_path, validation_fraction=0)
    x, _ = data.train.batch(slice(None))
    np.testing.assert_allclose(x[:, 0, 0, 0].numpy(), 10_000 * data.train.ids / 65535, rtol=1e-6)


def test_tables_without_a_header_and_odd_arrays(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "bare.csv", np.random.default_rng(0).normal(size=(20, 3)), delimiter=",")
    with pytest.raises(ValueError, match="begins with numbers where names of columns belong; add a header"):
        load_data(tmp_path / "bare.csv")
    np.savez(tmp_path / "words.npz", x=np.zeros((20, 2)), y=np.array(["b", "a"] * 10))
    assert sorted(load_data(tmp_path / "words.npz").test.labels.unique().tolist()) == [0, 1]
    (tmp_path / "cut.npz").write_bytes((tmp_path / "words.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot read .*cut.npz"):
        load_data(tmp_path / "cut.npz")
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"holds no data: its shape is \(0, 3\)"):
        load_data(tmp_path / "none.npy")
    assert as_split(np.zeros((3, 2), np.uint16)).summary().high == 0


def test_numbers_of_another_byte_order(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "x.npy", x.astype(">f8"))
    data = load_data(tmp_path / "x.npy")
    np.testing.assert_array_equal(data.train.values.numpy(), x[data.train.ids])


def test_a_sample_of_a_split() -> None:
    data = digits()
    sample = data.train.sample(100, seed=1)
    assert len(set(sample.ids.tolist())) == 100
    order = torch.randperm(1294, generator=torch.Generator().manual_seed(1))[:100]
    assert torch.equal(sample.ids, data.train.ids[order])
    assert len(data.train.sample(5000, seed=1)) == 1294
    assert torch.equal(data.train.head, data.train.values[:1])


# --- block by block, as if at once ------------------------------------------------------------------------------------


@pytest.fixture
def odd_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three rows of 15: an odd number of random numbers, and a last block that is shorter."""
    monkeypatch.setattr(splits_module, "_CPU_BLOCK", 50)


def bytes_of(rows: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (rows, 3, 5), dtype=np.uint8)


@pytest.mark.usefixtures("odd_blocks")
def test_draws_and_fingerprints_are_those_of_all_data_at_once() -> None:
    x = bytes_of(50)
    noise = np.random.default_rng(7).random(x.shape, dtype=np.float32)
    binary = Split(torch.from_numpy(x), top=255.0, draw="binarize").fixed(7)
    np.testing.assert_array_equal(
        binary.values.numpy(), (noise * np.float32(255) < x.astype(np.float32)).view(np.uint8)
    )
    assert binary.values.dtype == torch.uint8
    noisy = Split(torch.from_numpy(x), top=255.0, draw="dequantize").fixed(7)
    np.testing.assert_array_equal(noisy.values.numpy(), (x.astype(np.float32) + noise) / np.float32(256))
    assert len(binary.take(slice(0)).fixed(7)) == 0
    mask = x > 20
    masked = Split(torch.from_numpy(x), mask=torch.from_numpy(mask))
    lying = Split(torch.from_numpy(x).transpose(1, 2))  # not contiguous
    fed = [b"|", x.tobytes(), b"|", mask.tobytes(), b"|", x.transpose(0, 2, 1).tobytes(), b"|"]
    assert fingerprint(masked, lying) == hashlib.sha256(b"".join(fed)).hexdigest()


@pytest.mark.usefixtures("odd_blocks")
@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "i4", "f2", "f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_stored_numbers_are_those_of_the_file(dtype: str, order: Any, tmp_path: Path) -> None:
    x = np.asarray(bytes_of(50).astype(dtype), order=order)
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", stream=False)
    for split in (data.train, data.validation, data.test):
        assert split.values.is_contiguous()
        np.testing.assert_array_equal(split.values.numpy(), x[split.ids])
    if dtype not in ("?", "u1"):
        return
    top = 1 if dtype == "?" else 255
    cut = load_data(tmp_path / "x.npy", stream=False, binarize="threshold").train
    np.testing.assert_array_equal(cut.values.numpy(), x[cut.ids] >= top / 2)


@pytest.mark.usefixtures("odd_blocks")
def test_a_summary_sees_the_first_and_the_last_datum() -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(2, 9, (50, 3, 5))).float()
    plain = Split(x).summary()
    assert (plain.low, plain.high, plain.integral, plain.step) == (2.0, 8.0, True, 1.0)
    two = Split(255.0 * (x > 4), top=255.0)
    assert two.summary().integral
    for row in (0, 49):
        for value, changed in ((-1.0, (-1.0, 8.0, True)), (11.5, (2.0, 11.5, False))):
            other = x.clone()
            other[row, 2, 4] = value
            found = Split(other).summary()
            assert (found.low, found.high, found.integral) == changed
            hidden = Split(other, mask=other != value).summary()
            assert (hidden.low, hidden.high, hidden.integral) == (2.0, 8.0, True)
        level = two.values.clone()
        level[row, 0, 0] = 7.0
        assert not replace(two, values=level).summary().integral


@pytest.mark.usefixtures("odd_blocks")
def test_what_is_not_finite_is_counted_over_all_blocks() -> None:
    x = torch.zeros(50, 3, 5)
    x[20, 1, 2], x[20, 2, 0], x[49, 0, 0] = float("inf"), float("nan"), float("nan")
    with pytest.raises(ValueError, match=r"^3 values are not finite, the first inf at \(20, 1, 2\); pass a mask"):
        Split(x).summary()
    with pytest.raises(ValueError, match=r"^1 values are not finite, the first nan at \(49, 0, 0\); pass a mask"):
        Split(x, mask=(torch.arange(50) % 19 != 1)[:, None, None].expand(x.shape)).summary()
    assert Split(x, mask=x.isfinite()).summary().high == 0
    with pytest.raises(ValueError, match="none of 50 data has a value that is observed"):
        Split(x, mask=torch.zeros(x.shape, dtype=torch.bool)).summary()


PEAKS = """
import json, sys
from pathlib import Path
from vae_pyro import load_data

def memory(name):
    found = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(found[0].split()[1]) * 1024

small, cases = json.loads(sys.argv[1])
for path, options in [(small, {}), *cases]:  # the first loads what libraries load at their first use
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS:")
    load_data(path, stream=False, **options)
    if path != small:
        print(memory("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not forget a peak")
def test_opening_holds_the_data_twice_and_no_more(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "bytes.npy", random.integers(0, 256, (80_000, 784), dtype=np.uint8).reshape(-1, 28, 28))
    np.save(tmp_path / "floats.npy", random.random((80_000, 196), dtype=np.float32))
    np.save(tmp_path / "small.npy", bytes_of(100))
    cases: list[tuple[str, dict[str, str]]] = [
        *(("bytes", {"binarize": how}) for how in ("none", "dynamic", "static", "threshold")),
        ("floats", {}),
    ]
    paths = [str(tmp_path / "small.npy"), [(str(tmp_path / f"{name}.npy"), options) for name, options in cases]]
    done = subprocess.run([sys.executable, "-c", PEAKS, json.dumps(paths)], check=True, capture_output=True, text=True)
    # 63 MB: what was read, and the splits, which are copies; 3 row numbers of 8 bytes for each of 80,000 rows; 8 MB for
    # what the allocator keeps. A quarter of a copy more would not fit.
    size, rows = 80_000 * 784, 80_000
    most = 2 * size + 3 * 8 * rows + 8e6
    assert most < 2.25 * size
    for case, peak in zip(cases, map(int, done.stdout.split()), strict=True):
        assert size < peak < most, (case, peak / size)
