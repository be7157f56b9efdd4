"""``.npy`` files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vae_pyro.data.makers import random_bytes
from vae_pyro import load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.data.readers import open_source
from vae_pyro.data.readers.npy import ArrayFile


def test_arrays(tmp_path: Path) -> None:
    with seeded(0):
        x = torch.randn(50, 3).numpy()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
    data = load_data(tmp_path / "x.npy")
    assert data.x_shape == (3,)
    np.testing.assert_array_equal(data.train.values.numpy(), x[data.train.ids])
    with pytest.raises(ValueError, match="cannot read .*objects.npy.*it holds pickled objects, which could execute"):
        load_data(tmp_path / "objects.npy")
    with pytest.raises(ValueError, match=r"shape \(4,\); expected are numbers of shape \(datum"):
        load_data(tmp_path / "flat.npy")
    with pytest.raises(ValueError, match="cannot read .*cut.npy.*: it has 200 bytes, and its header asks for 728"):
        load_data(tmp_path / "cut.npy")
    np.save(tmp_path / "one.npy", x[:1])
    with pytest.raises(ValueError, match="1 data are too few"):
        load_data(tmp_path / "one.npy")


def test_numbers_of_another_byte_order(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "x.npy", x.astype(">f8"))
    data = load_data(tmp_path / "x.npy")
    np.testing.assert_array_equal(data.train.values.numpy(), x[data.train.ids])


def test_broken_array_files(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    with pytest.raises(FileNotFoundError, match="no file '.*x.npy'"):
        ArrayFile(file)
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="x.npy': it holds pickled objects, which could execute"):
        ArrayFile(file)
    np.save(file, np.asfortranarray(random_bytes(10, 3)))
    np.testing.assert_array_equal(ArrayFile(file).read(2, 7), random_bytes(10, 3)[2:7])  # whole, and in memory
    with pytest.raises(ValueError, match="stored by columns; save it with numpy.ascontiguousarray"):
        open_source(file, stream=True)
    np.save(file, np.zeros(4))
    with pytest.raises(ValueError, match=r"shape \(4,\); expected are numbers of shape \(datum"):
        ArrayFile(file)
    np.save(file, np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"holds no data: its shape is \(0, 3\)"):
        ArrayFile(file)
    np.save(file, random_bytes(100, 30))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cannot read .*x.npy': it has 3127 bytes, and its header asks for 3128"):
        ArrayFile(file)
    file.write_bytes(b"not an array")
    with pytest.raises(ValueError, match="cannot read .*x.npy': the magic string is not correct"):
        ArrayFile(file)
    file.write_bytes(whole)
    store = ArrayFile(file)
    file.write_bytes(whole[:500])  # while it is read
    with pytest.raises(ValueError, match="x.npy', rows 10 to 90: the file has been cut"):
        store.read(10, 90)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_with_their_channels_last_are_refused(channels: int, tmp_path: Path) -> None:
    x = random_bytes(30, 16, 12, channels)
    np.save(tmp_path / "x.npy", x)
    for stream in (False, True):
        with pytest.raises(ValueError, match=r"x.npy' has shape .*channels last.*numpy.moveaxis\(x, -1, 1\)"):
            load_data(tmp_path / "x.npy", stream=stream)
    np.save(tmp_path / "x.npy", np.moveaxis(x, -1, 1))
    assert load_data(tmp_path / "x.npy").x_shape == (channels, 16, 12)


@pytest.mark.parametrize("shape", [(30, 3, 8, 3), (30, 16, 8, 8), (30, 16, 4, 1), (30, 16, 3)])
def test_shapes_that_are_not_those_of_images_with_their_channels_last(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", random_bytes(*shape))
    assert load_data(tmp_path / "x.npy").x_shape == shape[1:]
