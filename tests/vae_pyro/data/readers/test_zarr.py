"""zarr arrays."""

from pathlib import Path

import numpy as np
import pytest

from tests.vae_pyro.data.makers import (
    SIZE,
    random_bytes,
    zarr_array,
)
from vae_pyro.data.readers import open_source


def test_broken_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    with pytest.raises(FileNotFoundError, match="no zarr folder '.*x.zarr'"):
        open_source(tmp_path / "x.zarr")
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(ValueError, match="cannot read .*x.zarr' as zarr"):
        open_source(tmp_path / "x.zarr")
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    group.create_array("a", data=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="holds the arrays a; name the data 'x'"):
        open_source(tmp_path / "x.zarr")
    group.create_array("x", data=np.zeros((4, 2)))
    group.create_array("y", data=np.zeros((5,), int))
    with pytest.raises(ValueError, match=r"y is int64 \(5,\), expected is one integer for each of the 4 rows of x"):
        open_source(tmp_path / "x.zarr")
    zarr.create_array(str(tmp_path / "wide"), shape=(1 << 20, 1000), chunks=(1 << 20, 10), dtype="f4")
    with pytest.raises(ValueError, match="chunks of 4000 MiB, which can only be read whole.*fewer rows in a chunk"):
        open_source(tmp_path / "wide", stream=True)
    store = zarr_array(tmp_path)
    chunk = next(file for file in (tmp_path / "x.zarr" / "x").rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot read .*x.zarr', rows [0-9]+ to [0-9]+: "):
        store.read(0, SIZE)


def test_sharded_zarr_is_read_by_shards(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    values = random_bytes(500, 4)
    array = zarr.create_array(str(tmp_path / "s.zarr"), shape=values.shape, chunks=(10, 4), shards=(80, 4), dtype="u1")
    array[:] = values
    store = open_source(tmp_path / "s.zarr")
    assert store.edges is not None
    assert store.edges.tolist() == [0, 80, 160, 240, 320, 400, 480, 500]
    np.testing.assert_array_equal(store.read(70, 430), values[70:430])


def test_lost_chunks_are_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    values = random_bytes(500, 4) + 1
    for name, shards in (("c.zarr", None), ("s.zarr", (100, 4))):
        zarr.create_array(str(tmp_path / name), data=values, chunks=(50, 4), shards=shards)
        np.testing.assert_array_equal(open_source(tmp_path / name).read(0, 500), values)
        chunks = [file for file in (tmp_path / name).rglob("*") if file.is_file() and file.name != "zarr.json"]
        chunks[1].unlink()
        with pytest.raises(
            ValueError, match=rf"{name}' has \d+ of the 10 chunks of x, and the others would be read as 0"
        ):
            open_source(tmp_path / name).read(0, 500)


def test_chunks_of_zeros_that_are_written_are_read(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    path, zeros = str(tmp_path / "z.zarr"), np.zeros((100, 4), np.uint8)
    zarr.create_array(path, data=zeros, chunks=(50, 4), config={"write_empty_chunks": True})
    np.testing.assert_array_equal(open_source(tmp_path / "z.zarr").read(0, 100), zeros)
