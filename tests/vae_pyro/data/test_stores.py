"""Rows read from where they are kept: equal to what was written, dealt into shares, refused where they are broken."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from vae_pyro.data.sources import read_source
from vae_pyro.data.streams import stores
from vae_pyro.data.streams.chunks import ParquetFolder, ZarrArray
from vae_pyro.data.streams.shares import Share
from vae_pyro.data.streams.split import open_store
from vae_pyro.data.streams.stores import ArrayFile, ImageFolder, Items, Store

SIZE = 1000


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def array_file(path: Path, values: np.ndarray[Any, Any] | None = None) -> ArrayFile:
    np.save(path / "x.npy", random_bytes(SIZE, 3, 2) if values is None else values)
    return ArrayFile(path / "x.npy")


def zarr_array(path: Path, values: np.ndarray[Any, Any] | None = None, rows: int = 70) -> ZarrArray:
    zarr = pytest.importorskip("zarr")
    values = random_bytes(SIZE, 3, 2) if values is None else values
    group = zarr.open_group(str(path / "x.zarr"), mode="w")
    group.create_array("x", data=values, chunks=(rows, *values.shape[1:]))
    group.create_array("y", data=np.arange(len(values)) % 7, chunks=(100,))
    return ZarrArray(path / "x.zarr")


def parquet_folder(path: Path, values: np.ndarray[Any, Any] | None = None) -> ParquetFolder:
    values = random_bytes(SIZE, 4).astype(np.float64) if values is None else values
    (path / "parquet").mkdir()
    for number, part in enumerate(np.split(values, [300, 301, 900])):
        frame = pd.DataFrame(part, columns=[f"c{i}" for i in range(values.shape[1])]).assign(word="w")
        frame.to_parquet(path / "parquet" / f"{number}.parquet", row_group_size=128)
    return ParquetFolder(path / "parquet")


def image_folder(path: Path) -> ImageFolder:
    for index, image in enumerate(random_bytes(60, 5, 6)):
        folder = path / "pictures" / ("even" if index % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    return ImageFolder(path / "pictures")


def items(path: Path) -> Items:
    return Items(TensorDataset(torch.from_numpy(random_bytes(SIZE, 3, 2)), torch.arange(SIZE) % 7))


type Maker = Callable[[Path], Store]
MAKERS = [array_file, zarr_array, parquet_folder, image_folder, items]


@pytest.mark.parametrize("make", MAKERS)
def test_any_rows_are_what_was_written(make: Maker, tmp_path: Path) -> None:
    store = make(tmp_path)
    if make is image_folder:
        source = read_source(tmp_path / "pictures")
        whole, labels = source.values, source.labels
        assert store.about == source.about
    else:
        whole = random_bytes(SIZE, 4).astype(float) if make is parquet_folder else random_bytes(SIZE, 3, 2)
        labels = None if make in (array_file, parquet_folder) else np.arange(SIZE) % 7
    assert (len(store), store.x_shape, store.dtype) == (len(whole), whole.shape[1:], whole.dtype)
    random = np.random.default_rng(1)
    for _ in range(30):
        start, stop = sorted(random.integers(0, len(whole) + 1, 2).tolist())
        np.testing.assert_array_equal(store.read(start, stop), whole[start:stop])
        index = random.integers(0, len(whole), random.integers(1, 50))  # with repetitions, in any order
        np.testing.assert_array_equal(store.rows(index), whole[index])
        assert (store.labels(index) is None) == (labels is None)
        if labels is not None:
            np.testing.assert_array_equal(store.labels(index), labels[index])
    assert (store.extent.low, store.extent.high, store.extent.integral) == (whole.min(), whole.max(), True)
    assert store.top == (None if make is parquet_folder else 255)
    assert not store.two_levels
    again = pickle.loads(pickle.dumps(store))
    assert again.digest() == store.digest()
    np.testing.assert_array_equal(again.read(0, 9), whole[:9])


@pytest.mark.parametrize("kind", ["?", "u1", "u2", "i4", "i8", "f2", "f4", ">f4", ">i2", "f8"])
def test_numbers_keep_their_values_in_types_that_torch_has(kind: str, tmp_path: Path) -> None:
    values = random_bytes(50, 6).astype(kind)
    store = array_file(tmp_path, values)
    found = store.read(3, 40)
    np.testing.assert_array_equal(found, values[3:40])
    assert torch.from_numpy(found).dtype == torch.from_numpy(store.rows(np.array([4, 1]))).dtype
    assert found.dtype == store.dtype
    # What reading into memory makes of them.
    from vae_pyro import load_data

    assert torch.from_numpy(found).dtype == load_data(tmp_path / "x.npy").train.values.dtype


def test_full_intensity_and_levels(tmp_path: Path) -> None:
    bits = random_bytes(500, 4, 4) % 2
    binary = array_file(tmp_path, bits)
    assert (binary.top, binary.two_levels) == (1, True)
    late = bits.copy()
    late[-1, -1, -1] = 2
    grey = array_file(tmp_path, late)
    assert (grey.top, grey.two_levels) == (255, False)
    assert array_file(tmp_path, late * 0 + 255 * bits).two_levels
    assert array_file(tmp_path, bits.astype(np.float32)).top is None


def test_a_value_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_PASS_BYTES", 1000)  # many blocks
    values = np.random.default_rng(0).normal(size=(700, 3))
    assert not array_file(tmp_path, values).extent.integral
    values[612, 1], values[690, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"x.npy': 2 values are not finite, the first nan at \(612, 1\); impute them"):
        _ = array_file(tmp_path, values).extent


def test_a_digest_follows_the_contents(tmp_path: Path) -> None:
    values = random_bytes(SIZE, 3, 2)
    digest = array_file(tmp_path, values).digest()
    (tmp_path / "other").mkdir()
    assert array_file(tmp_path / "other", values).digest() == digest  # another place, another time
    assert array_file(tmp_path, values[:-1]).digest() != digest
    values[-1, 0, 0] ^= 1
    assert array_file(tmp_path, values).digest() != digest


# --- shares -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [array_file, zarr_array, parquet_folder, items])
@pytest.mark.parametrize(("test", "validation"), [(0.2, 0.1), (0.01, 0.0), (0.5, 0.9)])
def test_shares_are_disjoint_complete_and_exact(make: Maker, test: float, validation: float, tmp_path: Path) -> None:
    store = make(tmp_path)
    share = {
        name: Share(store, name, test=test, validation=validation, seed=5) for name in ("test", "validation", "train")
    }
    num_test = round(test * SIZE)
    num_validation = round(validation * (SIZE - num_test))
    assert len(share["test"]) == num_test
    assert len(share["validation"]) == num_validation
    ids = {name: one.ids(np.arange(len(one))) for name, one in share.items()}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(ids.values()))), np.arange(SIZE))
    whole = store.read(0, SIZE)
    for name, one in share.items():
        assert (np.diff(ids[name]) > 0).all()  # in the order of the store
        np.testing.assert_array_equal(one.read(0, len(one)), whole[ids[name]])
        half = np.arange(len(one))[::-2]
        np.testing.assert_array_equal(one.rows(half), whole[ids[name][half]])
        if one.edges is not None:
            assert one.edges[0] == 0
            assert one.edges[-1] == len(one)
    other = Share(store, "test", test=test, validation=validation, seed=6)
    assert not np.array_equal(other.ids(np.arange(num_test)), ids["test"])
    assert other.digest() != share["test"].digest()


def test_shares_are_spread_over_the_rows_and_random(tmp_path: Path) -> None:
    size, test = 100_000, 0.2
    store = array_file(tmp_path, random_bytes(size, 2))
    chosen = np.zeros(size, bool)
    share = Share(store, "test", test=test, validation=0.1, seed=0)
    chosen[share.ids(np.arange(len(share)))] = True
    # Every 256 rows give their part, to rounding, whatever the order of the source.
    counts = np.add.reduceat(chosen, np.arange(0, size - 256, 256))
    assert np.abs(counts[:-1] - test * 256).max() <= 1
    # Within them the choice is random: neighbours are chosen together as often as at random; 5 standard errors.
    together = (chosen[1:] & chosen[:-1]).mean()
    expected = test * (test * 256 - 1) / 255
    assert abs(together - expected) < 5 * np.sqrt(expected / size)


# --- refusals -----------------------------------------------------------------------------------------------------


def test_broken_array_files(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    with pytest.raises(FileNotFoundError, match="no file '.*x.npy'"):
        ArrayFile(file)
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="x.npy': it holds pickled objects, which could execute"):
        ArrayFile(file)
    np.save(file, np.asfortranarray(random_bytes(10, 3)))
    with pytest.raises(ValueError, match="stored by columns; save it with numpy.ascontiguousarray"):
        ArrayFile(file)
    np.save(file, np.zeros(4))
    with pytest.raises(ValueError, match=r"shape \(4,\); wanted are numbers of shape \(datum"):
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


def test_broken_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    with pytest.raises(FileNotFoundError, match="no zarr folder '.*x.zarr'"):
        open_store(tmp_path / "x.zarr")
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(ValueError, match="cannot read .*x.zarr' as zarr"):
        open_store(tmp_path / "x.zarr")
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    group.create_array("a", data=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="holds the arrays a; name the data 'x'"):
        open_store(tmp_path / "x.zarr")
    group.create_array("x", data=np.zeros((4, 2)))
    group.create_array("y", data=np.zeros((5,), int))
    with pytest.raises(ValueError, match=r"y is int64 \(5,\), one integer for each of 4 rows of x is wanted"):
        open_store(tmp_path / "x.zarr")
    zarr.create_array(str(tmp_path / "wide"), shape=(1 << 20, 1000), chunks=(1 << 20, 10), dtype="f4")
    with pytest.raises(ValueError, match="chunks of 4000 MiB, which can only be read whole.*fewer rows in a chunk"):
        open_store(tmp_path / "wide")
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
    store = open_store(tmp_path / "s.zarr")
    assert store.edges is not None
    assert store.edges.tolist() == [0, 80, 160, 240, 320, 400, 480, 500]
    np.testing.assert_array_equal(store.read(70, 430), values[70:430])


def test_broken_parquet(tmp_path: Path) -> None:
    store = parquet_folder(tmp_path)
    folder = tmp_path / "parquet"
    assert store.about == {"columns": ["c0", "c1", "c2", "c3"], "columns_left_out": ["word"]}
    (folder / "1.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot read .*1.parquet', row group 0"):
        store.read(0, SIZE)
    with pytest.raises(ValueError, match="cannot read .*1.parquet'"):
        open_store(folder)
    pd.DataFrame({"c0": [1.0], "other": [2.0]}).to_parquet(folder / "1.parquet")
    with pytest.raises(
        ValueError,
        match=r"columns differ: .*0.parquet' has the numeric columns c0, c1, c2, c3, .*1.parquet' has c0, other",
    ):
        open_store(folder)
    pd.DataFrame({"w": ["a"]}).to_parquet(tmp_path / "words.parquet")
    with pytest.raises(ValueError, match="has 1 rows and none for numeric columns"):
        open_store(tmp_path / "words.parquet")


def test_broken_images(tmp_path: Path) -> None:
    store = image_folder(tmp_path)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "pictures" / "odd" / "01.png")
    with pytest.raises(ValueError, match=r"images differ: .*00.png' is \(1, 5, 6\), .*01.png' is \(1, 5, 7\)"):
        store.read(0, 60)
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(tmp_path / "pictures" / "odd" / "01.png")
    with pytest.raises(ValueError, match=r"00.png' has 8 bits and .*01.png' 16: .* bring them to one depth"):
        store.read(0, 60)
    (tmp_path / "pictures" / "odd" / "01.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot read the image .*01.png"):
        store.read(0, 60)


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
        ("words", "item 3 is a str; wanted is a tensor or an array"),
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
    with pytest.raises(ValueError, match="cannot stream .*x.csv.: expected a .npy file, a zarr folder"):
        open_store(tmp_path / "x.csv")
