"""Sprites: pictures drawn from known factors (shape, scale, rotation, position), every combination by its number."""

from dataclasses import dataclass
from math import pi, prod, sqrt
from typing import Any, ClassVar

import numpy as np

type Array = np.ndarray[Any, Any]

SHAPES = ("square", "ellipse", "heart")

# All shapes have unit area. The square's half side; the ellipse's half axes, two to one; and the heart: a square with
# half a disc on two of its sides, standing on the corner between the others, with its centroid at the origin.
_HALF_SIDE = 0.5
_LONG = sqrt(2 / pi)
_HEART_SIDE = 1 / sqrt(1 + pi / 4)
_HEART_CENTROID = (7 / 12 + 3 * pi / 16) / (1 + pi / 4)

# Square root of the area of the largest sprite, and the margin that the centres keep from the edge, both in widths of
# the picture: the longest half axis is then 0.24 widths, so that no sprite is cut off.
_LARGEST, _MARGIN = 0.3, 0.25
# Points in each direction at which the coverage of a pixel is counted for grey edges.
_SUBPIXELS = 4
_PIXELS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class SpriteGrid:
    """All combinations of five factors, numbered in the order of `names` with the last running fastest.

    Shapes of one scale have the same area, so that scale and shape are distinguishable. The rotations span a quarter
    turn: a whole one would give a square every picture four times, and rotations that give the same picture cannot be
    inferred from it.

    Attributes:
        size: width and height of a picture in pixels, at least 16.
        scales: number of scales, evenly from half to the whole length of the largest.
        rotations: number of angles, evenly in [0, 90) degrees.
        positions: number of places of the centre along each axis.
        antialias: grey edges in 17 levels, 0 to 16, instead of 0 and 1.

    References:
        Matthey et al. 2017, dSprites: Disentanglement testing sprites dataset,
        https://github.com/google-deepmind/dsprites-dataset (the factors; none of its pictures are used).
    """

    size: int = 32
    scales: int = 6
    rotations: int = 10
    positions: int = 8
    antialias: bool = False

    names: ClassVar[tuple[str, ...]] = ("shape", "scale", "rotation", "x", "y")

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"sprites require a size of at least 16 pixels, got {self.size}")
        for name in ("scales", "rotations", "positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"sprites require at least 1 of {name}, got {getattr(self, name)}")

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of values of each factor, in the order of `names`."""
        return len(SHAPES), self.scales, self.rotations, self.positions, self.positions

    def __len__(self) -> int:
        return prod(self.levels)

    @property
    def top(self) -> int:
        """Value of full intensity."""
        return _SUBPIXELS**2 if self.antialias else 1

    def factors_of(self, ids: Any) -> Array:
        """Levels of each factor, shape ``(datum, 5)``, int64, from numbers of combinations.

        Raises:
            ValueError: a number that no combination has.
        """
        numbers = np.asarray(ids)
        if numbers.ndim != 1 or numbers.dtype.kind not in "ui":
            raise ValueError(
                f"ids are integers of shape (datum,), got {numbers.dtype} of shape {numbers.shape}; "
                "take `Split.ids`, or rows of the data set"
            )
        bad = (numbers < 0) | (numbers >= len(self))
        if bad.any():
            raise ValueError(
                f"sprite {int(numbers[bad][0])} requested, the grid has 0 to {len(self) - 1}; use the grid of the data"
            )
        return np.stack(np.unravel_index(numbers, self.levels), 1).astype(np.int64)

    def ids_of(self, factors: Any) -> Array:
        """Numbers of combinations, shape ``(datum,)``, int64, from levels ``(datum, 5)``; undoes `factors_of`.

        Raises:
            ValueError: wrong shape, or a level that its factor does not have.
        """
        levels = np.asarray(factors)
        if levels.ndim != 2 or levels.shape[1] != len(self.levels):
            raise ValueError(f"factors have shape (datum, {len(self.levels)}), got {levels.shape}")
        for name, column, count in zip(self.names, levels.T, self.levels, strict=True):
            if len(column) and not 0 <= column.min() <= column.max() < count:
                raise ValueError(f"factor {name!r} has levels 0 to {count - 1}, got {column.min()} to {column.max()}")
        return np.ravel_multi_index(tuple(levels.T), self.levels).astype(np.int64)

    def values_of(self, factors: Any) -> Array:
        """What the levels stand for, shape ``(datum, 5)``, float64.

        Shape as its place in `SHAPES`, scale as a share of the largest, rotation in degrees, x (to the right) and y
        (downwards) of the centroid in pixels from the upper left corner.
        """
        levels = np.asarray(factors, dtype=np.float64)
        place = np.linspace(_MARGIN, 1 - _MARGIN, self.positions) if self.positions > 1 else np.array([0.5])
        scale = np.linspace(0.5, 1, self.scales) if self.scales > 1 else np.array([1.0])
        shape, which, angle, x, y = levels.T
        index = [column.astype(np.int64) for column in (which, x, y)]
        return np.stack(
            [
                shape,
                scale[index[0]],
                90 * angle / self.rotations,
                self.size * place[index[1]],
                self.size * place[index[2]],
            ],
            1,
        )

    def render(self, ids: Any) -> Array:
        """Pictures of some combinations, shape ``(datum, 1, size, size)``, bytes from 0 to `top`.

        Raises:
            ValueError: see `factors_of`.
        """
        factors = self.factors_of(ids)
        values = self.values_of(factors)
        fine = _SUBPIXELS if self.antialias else 1
        images = np.empty((len(factors), 1, self.size, self.size), np.uint8)
        for shape in range(len(SHAPES)):
            rows = np.flatnonzero(factors[:, 0] == shape)
            block = max(_PIXELS_AT_ONCE // (self.size * fine) ** 2, 1)
            for start in range(0, len(rows), block):
                chosen = rows[start : start + block]
                inside = self._inside(shape, values[chosen], fine)
                counted = inside.reshape(len(chosen), self.size, fine, self.size, fine).sum((2, 4), dtype=np.uint8)
                images[chosen, 0] = counted
        return images

    def _inside(self, shape: int, values: Array, fine: int) -> Array:
        """Whether points of a lattice lie in the sprite, ``(datum, size * fine, size * fine)``."""
        scale, angle, x, y = (values[:, k, None, None].astype(np.float32) for k in range(1, 5))
        lattice = ((np.arange(self.size * fine) + 0.5) / fine).astype(np.float32)
        length = _LARGEST * self.size * scale
        across, up = (lattice[None, None, :] - x) / length, (y - lattice[None, :, None]) / length
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        u, v = cosine * across + sine * up, cosine * up - sine * across
        if SHAPES[shape] == "square":
            return np.maximum(np.abs(u), np.abs(v)) < _HALF_SIDE
        if SHAPES[shape] == "ellipse":
            return u**2 + 4 * v**2 < _LONG**2
        # Along the heart's two straight sides, from its tip, in units of their length.
        a = (u + v) / sqrt(2) / _HEART_SIDE + _HEART_CENTROID
        b = (v - u) / sqrt(2) / _HEART_SIDE + _HEART_CENTROID
        square = (np.minimum(a, b) > 0) & (np.maximum(a, b) < 1)
        discs = np.minimum((a - 0.5) ** 2 + (b - 1) ** 2, (a - 1) ** 2 + (b - 0.5) ** 2) < 0.25
        return square | discs


def sprites(grid: SpriteGrid | None = None, *, count: int | None = None, seed: int = 0) -> tuple[Array, Array]:
    """Pictures and the factors that they were drawn from.

    Args:
        grid: of factors, see `SpriteGrid`; ``None`` is the data set ``sprites``.
        count: draw so many different combinations at random; ``None`` gives all, in the order of their numbers.
        seed: of the draw.

    Returns:
        Images ``(datum, 1, size, size)``, bytes, and levels of the factors ``(datum, 5)`` in the order of
        `SpriteGrid.names`; ``grid.ids_of(factors)`` numbers them.

    Raises:
        ValueError: ``count`` is not between 1 and the number of combinations.

    >>> images, factors = sprites(count=100)
    >>> images.shape, factors.shape
    ((100, 1, 32, 32), (100, 5))
    """
    grid = SpriteGrid() if grid is None else grid
    ids = np.arange(len(grid))
    if count is not None:
        if not 1 <= count <= len(grid):
            raise ValueError(f"count is between 1 and {len(grid)}, the number of combinations, got {count}")
        ids = np.random.default_rng(seed).choice(len(grid), count, replace=False)
    return grid.render(ids), grid.factors_of(ids)
