"""Items of torch data sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.vae_pyro.data.makers import random_bytes
from vae_pyro.data.readers import open_source
from vae_pyro.data.readers.items import Items


class Odd:
    """Five items, of which one is wrong in the way that is asked for."""

    def __init__(self, wrong: Any, at: int = 3) -> None:
        self.wrong, self.at = wrong, at

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        if index != self.at:
            return np.zeros(3, np.float32), 1
        if isinstance(self.wrong, Exception):
            raise self.wrong
        return self.wrong


def test_broken_datasets() -> None:
    for wrong, message in (
        (KeyError("gone"), "Odd dataset: item 3 cannot be read, KeyError: 'gone'"),
        (np.zeros(4, np.float32), r"item 3 is float32 \(4,\), item 0 is float32 \(3,\); bring them to one shape"),
        (np.zeros(3, np.float64), r"item 3 is float64 \(3,\), item 0 is float32 \(3,\)"),
        ("words", "item 3 is a str; expected is a tensor or an array"),
    ):
        with pytest.raises(ValueError, match=message):
            Items(Odd(wrong)).read(0, 5)
    with pytest.raises(ValueError, match="item 0 cannot be read, OSError: disk"):
        Items(Odd(OSError("disk"), at=0))
    with pytest.raises(ValueError, match="list dataset holds no data"):
        Items([])
    with pytest.raises(ValueError, match="set dataset has no __getitem__ and __len__"):
        Items({1, 2})


def test_other_items(tmp_path: Path) -> None:
    pixels = random_bytes(4, 5, 6, 3)
    pictures = Items([(Image.fromarray(one), np.int64(label)) for label, one in enumerate(pixels)])
    assert (pictures.x_shape, pictures.top) == ((3, 5, 6), 255)
    np.testing.assert_array_equal(pictures.read(1, 4), pixels[1:].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(pictures.labels(np.array([2, 0])), [2, 0])

    class Together(Odd):
        def __getitems__(self, index: list[int]) -> Any:
            assert all(isinstance(i, int) for i in index)
            return [np.full(3, i, np.float32) for i in index]

    np.testing.assert_array_equal(Items(Together(None)).rows(np.array([4, 2]))[:, 0], [4, 2])
    with pytest.raises(ValueError, match="cannot stream .*x.csv.: expected a folder of images, a .npy file"):
        open_source(tmp_path / "x.csv", stream=True)


def test_items_that_hide_elements_are_refused() -> None:
    hidden = np.ma.MaskedArray(np.zeros(3, np.float32), [False, True, False])
    with pytest.raises(
        ValueError, match="Odd dataset: item 3 is a masked array, and data that are streamed have no mask"
    ):
        Items(Odd(hidden)).read(0, 5)


def test_items_with_their_channels_last_are_refused() -> None:
    with pytest.raises(ValueError, match=r"item 0, has shape \(4, 16, 16, 3\).*channels last"):
        Items(list(np.zeros((4, 16, 16, 3), np.uint8)))


def test_pictures_of_a_palette_are_their_colours_and_those_of_several_frames_are_refused(tmp_path: Path) -> None:
    pixels = np.repeat(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8), 2, axis=0)
    coloured = Image.fromarray(pixels)
    np.testing.assert_array_equal(Items([coloured.quantize(2)] * 2).read(0, 1)[0], pixels.transpose(2, 0, 1))
    coloured.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (2, 2))])
    with Image.open(tmp_path / "a.gif") as moving, pytest.raises(ValueError, match="item 0 has 2 frames"):
        Items([moving])
