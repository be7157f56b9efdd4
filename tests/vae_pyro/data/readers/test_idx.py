"""IDX files: what torchvision reads is read without it, and a damaged file is refused."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vae_pyro.data.readers.idx import read_idx


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize("shape", [(7,), (5, 2, 3), (300, 4, 4), (0, 2, 2)])
def test_arrays_come_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_idx(tmp_path / "a", array)
    read = read_idx(tmp_path / "a")
    np.testing.assert_array_equal(read, array)
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "has 5 elements"),
        (lambda content: content + b"\0", "has 7 elements"),
        (lambda content: b"\0\0\x0b" + content[3:], "not an IDX file of bytes"),  # 16-bit integers
        (lambda content: content[:3], "not an IDX file"),
        (lambda content: content[:3] + b"\xff" + content[4:], "not an IDX file"),
        (lambda content: b"", "not an IDX file"),
    ],
)
def test_damaged_files_are_refused(damage: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_idx(path, np.arange(6, dtype=np.uint8).reshape(2, 3))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=reason):
        read_idx(path)
