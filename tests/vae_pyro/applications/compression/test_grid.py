"""The grid of latents, of equal mass under the prior."""

import numpy as np
import pytest
from scipy.stats import norm

from vae_pyro.applications.compression.grid import Grid


def test_two_steps_are_the_gaussian_mass_of_each_bucket() -> None:
    grid = Grid(8)
    for loc, scale in ((0.0, 1.0), (0.7, 0.2), (-2.5, 0.4), (1.0, 3.0)):
        mean, sd = np.full(grid.cells, loc), np.full(grid.cells, scale)
        cell = grid.cell_weights(mean[:1], sd[:1])
        bucket = grid.bucket_weights(mean, sd, np.arange(grid.cells))
        joint = (cell / cell.sum()).T * bucket / bucket.sum(1, keepdims=True)
        wanted = np.diff(norm.cdf(grid.edges, loc, scale))
        np.testing.assert_allclose(joint.reshape(-1), wanted, atol=2e-6)  # two roundings to 2^-20
        assert (np.stack([cell, *bucket[:, None]]) == np.rint(np.stack([cell, *bucket[:, None]]))).all()


def test_buckets_have_equal_mass_and_numbers_come_apart_and_together() -> None:
    grid = Grid(10)
    np.testing.assert_allclose(np.diff(norm.cdf(grid.edges)), 1 / grid.size)
    index = np.arange(grid.size)
    np.testing.assert_array_equal(grid.join(*grid.split(index)), index)
    assert (np.diff(grid.centres) > 0).all()
    assert ((grid.edges[:-1] < grid.centres) & (grid.centres < grid.edges[1:])).all()


@pytest.mark.parametrize("loc", [-40.0, -6.0, 0.0, 6.0, 40.0])
@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 1e4])
def test_no_gaussian_is_without_weights(loc: float, scale: float) -> None:
    grid = Grid(16)
    cell = grid.cell_weights(np.array([loc]), np.array([scale]))
    bucket = grid.bucket_weights(np.full(3, loc), np.full(3, scale), np.array([0, 128, 255]))
    for weights in (cell, bucket):
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()
        assert (weights.sum(1) > 0).all()
    if abs(loc) > 5 and scale < 1:
        assert cell.argmax() == (0 if loc < 0 else 255)


def test_both_tails_of_a_gaussian_are_alike() -> None:
    # A cell ten standard deviations above the mean has its digits as one below has them.
    grid = Grid(16)
    for loc, scale in ((-9.0, 1.0), (-0.5, 0.3)):
        above = grid.bucket_weights(np.array([loc]), np.array([scale]), np.array([250]))
        below = grid.bucket_weights(np.array([-loc]), np.array([scale]), np.array([5]))
        np.testing.assert_allclose(above[0], below[0, ::-1], atol=1)
        assert len(np.unique(above)) > 100


def test_broken_latents_and_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Grid().cell_weights(np.array([np.nan]), np.ones(1))
    with pytest.raises(ValueError, match="bits must be an even number from 4 to 20, got 7"):
        Grid(7)
