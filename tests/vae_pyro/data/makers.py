"""Sources of every format that can be streamed, written and opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from vae_pyro.data.readers.images import ImageFolder
from vae_pyro.data.readers.items import Items
from vae_pyro.data.readers.npy import ArrayFile
from vae_pyro.data.readers.parquet import ParquetFolder
from vae_pyro.data.readers.store import Store
from vae_pyro.data.readers.zarr import ZarrArray

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
