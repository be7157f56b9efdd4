"""Sprites: what is drawn is what the factors say, every combination once, and the data set's rows are its numbers."""

from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch

from vae_pyro import load_data
from vae_pyro.data.sprites import SHAPES, SpriteGrid, sprites


def moments(images: np.ndarray[Any, Any], top: int) -> tuple[Any, Any, Any, Any]:
    """Area, centroid and the second moments along x and y of each picture, in pixels."""
    weight = images[:, 0].astype(np.float64) / top
    area = weight.sum((1, 2))
    place = np.arange(images.shape[-1]) + 0.5
    across, down = weight.sum(1) / area[:, None], weight.sum(2) / area[:, None]
    x, y = across @ place, down @ place
    return area, np.stack([x, y], 1), across @ place**2 - x**2, down @ place**2 - y**2


def test_numbers_and_factors_undo_each_other() -> None:
    grid = SpriteGrid(scales=2, rotations=3, positions=4)
    factors = grid.factors_of(np.arange(len(grid)))
    assert len(grid) == 3 * 2 * 3 * 4 * 4
    assert len(np.unique(factors, axis=0)) == len(grid)
    assert factors.max(0).tolist() == [level - 1 for level in grid.levels]
    np.testing.assert_array_equal(grid.ids_of(factors), np.arange(len(grid)))
    assert grid.factors_of(np.arange(2))[1].tolist() == [0, 0, 0, 0, 1]  # y runs fastest


def test_areas_and_centroids_are_those_of_the_factors() -> None:
    """Areas are (0.3 size scale)^2 for every shape; a side is counted to a subpixel of a quarter at worst."""
    grid = SpriteGrid(size=48, scales=3, rotations=4, positions=3, antialias=True)
    images, factors = sprites(grid)
    values = grid.values_of(factors)
    area, centroid, _, _ = moments(images, grid.top)
    side = 0.3 * 48 * values[:, 1]
    assert (np.abs(area - side**2) <= 2 * side / 4 + 1 / 16).all()
    np.testing.assert_allclose(centroid, values[:, 3:], atol=0.1)
    by_shape = [area[factors[:, 0] == shape].mean() for shape in range(len(SHAPES))]
    np.testing.assert_allclose(by_shape, np.mean(by_shape), rtol=0.01)


def test_shapes_have_their_second_moments_and_turn() -> None:
    """Of unit area: a square has 1/12 about each axis, an ellipse of 2 to 1 has a^2 / 4 and a^2 / 16, a^2 = 2 / pi."""
    grid = SpriteGrid(size=64, scales=1, rotations=9, positions=1, antialias=True)
    images, factors = sprites(grid)
    unit = (0.3 * 64) ** 2
    _, _, across, down = moments(images, grid.top)
    square, ellipse, heart = (factors[:, 0] == shape for shape in range(3))
    np.testing.assert_allclose(across[square], unit / 12, rtol=0.02)
    np.testing.assert_allclose(down[square], unit / 12, rtol=0.02)
    angle = np.deg2rad(10.0 * factors[ellipse, 2])
    long, short = unit * 2 / np.pi / 4, unit * 2 / np.pi / 16
    np.testing.assert_allclose(across[ellipse], long * np.cos(angle) ** 2 + short * np.sin(angle) ** 2, rtol=0.02)
    np.testing.assert_allclose(down[ellipse], long * np.sin(angle) ** 2 + short * np.cos(angle) ** 2, rtol=0.02)
    upright = images[np.flatnonzero(heart)[0], 0].astype(int)
    np.testing.assert_array_equal(upright, upright[:, ::-1])  # a heart is its own mirror image
    rows = np.flatnonzero(upright.sum(1))
    assert (upright[rows[-1]] > 0).sum() < 6 < (upright[rows[0] + 5] > 0).sum()  # and stands on its tip
    turned = images[np.flatnonzero(heart)[4], 0].astype(int)
    # Turned to the left by 40 degrees, the tip, which was below, points to the lower right.
    far = np.argwhere(turned)[((np.argwhere(turned) - 31.5) ** 2).sum(1).argmax()] - 31.5
    assert far[0] > 0
    assert far[1] > 0


def test_pictures_differ() -> None:
    """Grey edges tell all combinations apart; in black and white a few of the smallest sprites coincide."""
    grey, _ = sprites(SpriteGrid(rotations=5, positions=4, antialias=True))
    assert len(np.unique(grey.reshape(len(grey), -1), axis=0)) == len(grey)
    binary, _ = sprites()
    distinct = len(np.unique(np.packbits(binary.reshape(len(binary), -1), axis=1), axis=0))
    assert distinct > 0.98 * len(binary)


def test_the_data_set_knows_its_factors() -> None:
    start = perf_counter()
    data = load_data("sprites")
    assert perf_counter() - start < 3
    grid = SpriteGrid()
    assert data.x_shape == (1, 32, 32)
    assert sum(data.facts.sizes.values()) == len(grid) == 11_520
    assert data.facts.classes == SHAPES
    assert data.facts.factors == {"shape": 3, "scale": 6, "rotation": 10, "x": 8, "y": 8}
    assert data.train.summary().integral
    factors = grid.factors_of(data.test.ids.numpy())
    assert torch.equal(data.test.labels, torch.from_numpy(factors[:, 0]))
    x, _ = data.test.batch(slice(None))
    np.testing.assert_array_equal(x.numpy(), grid.render(data.test.ids.numpy()))
    area, centroid, _, _ = moments(x.numpy().astype(np.uint8), 1)
    values = grid.values_of(factors)
    assert np.corrcoef(area, values[:, 1] ** 2)[0, 1] > 0.99
    assert np.abs(centroid - values[:, 3:]).max() < 0.6


def test_subsamples() -> None:
    images, factors = sprites(count=300, seed=1)
    again, _ = sprites(count=300, seed=1)
    other, _ = sprites(count=300, seed=2)
    np.testing.assert_array_equal(images, again)
    assert not np.array_equal(images, other)
    ids = SpriteGrid().ids_of(factors)
    assert len(np.unique(ids)) == 300
    np.testing.assert_array_equal(SpriteGrid().render(ids), images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpriteGrid(size=8), "size of at least 16 pixels, got 8"),
        (lambda: SpriteGrid(scales=0), "at least 1 of scales, got 0"),
        (lambda: SpriteGrid().render(np.array([11_520])), "sprite 11520 requested, the grid has 0 to 11519"),
        (lambda: SpriteGrid().render(np.array([0.5])), "ids are integers"),
        (lambda: SpriteGrid().ids_of(np.array([[0, 6, 0, 0, 0]])), "factor 'scale' has levels 0 to 5, got 6 to 6"),
        (lambda: SpriteGrid().ids_of(np.zeros((2, 4))), r"shape \(datum, 5\), got \(2, 4\)"),
        (lambda: sprites(count=0), "count is between 1 and 11520"),
    ],
)
def test_bad_wishes(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
