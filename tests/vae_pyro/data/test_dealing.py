"""From sources to splits: unknown names, in memory or streamed, every number as it is stored, in bounded memory."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vae_pyro.data.makers import MAKERS, Maker, array_file, parquet_folder, random_bytes, zarr_array
from vae_pyro import DataConfig, load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.data.dataset import as_split, load_all, stream
from vae_pyro.data.split import fingerprint
from vae_pyro.data.streams.split import StreamedSplit


def digits(**options: Any) -> Any:
    return load_data("digits", **options)


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'digit'; did you mean 'digits'\\? choose from digits, "):
        load_data("digit")
    with pytest.raises(FileNotFoundError, match="no file .*absent.npy"):
        load_data(tmp_path / "absent.npy")
    with pytest.raises(
        ValueError,
        match=r"expected a \.csv file, a folder of images, a \.npy file, a \.npz file, a \.parquet file or a folder",
    ):
        load_data(tmp_path / "data.xls")
    with pytest.raises(ValueError, match="unknown split 'dev'; choose from train, validation, test"):
        digits().split("dev")
    with pytest.raises(ValueError, match="split 'validation' holds no data"):
        digits(validation_fraction=0).split("validation")


def test_bytes_of_zero_and_one_are_binary_already(tmp_path: Path) -> None:
    with seeded(0):
        x = (torch.rand(40, 4, 4) < 0.4).numpy()
    for name, values in (("bool.npy", x), ("byte.npy", x.astype(np.uint8))):
        np.save(tmp_path / name, values)
        data = load_data(tmp_path / name)
        assert data.facts.range == (0.0, 1.0)
        assert data.train.summary().integral
        np.testing.assert_array_equal(data.test.batch(slice(None))[0].numpy(), x[data.test.ids])


@pytest.mark.usefixtures("odd_blocks")
@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "i4", "f2", "f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_stored_numbers_are_those_of_the_file(dtype: str, order: Any, tmp_path: Path) -> None:
    x = np.asarray(random_bytes(50, 3, 5).astype(dtype), order=order)
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not forget a peak")
def test_opening_holds_the_splits_and_no_copy_of_the_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "bytes.npy", random.integers(0, 256, (80_000, 784), dtype=np.uint8).reshape(-1, 28, 28))
    np.save(tmp_path / "floats.npy", random.random((80_000, 196), dtype=np.float32))
    np.save(tmp_path / "small.npy", random_bytes(100, 3, 5))
    cases: list[tuple[str, dict[str, str]]] = [
        *(("bytes", {"binarize": how}) for how in ("none", "dynamic", "static", "threshold")),
        ("floats", {}),
    ]
    paths = [str(tmp_path / "small.npy"), [(str(tmp_path / f"{name}.npy"), options) for name, options in cases]]
    # The allocator is to give back at once what is freed, so that every case begins as the first.
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, json.dumps(paths)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    # 63 MB: the splits, and draws of the training data, 0.72 of all, beside them. A copy of all would not fit.
    size = 80_000 * 784
    most = 1.85 * size
    for case, peak in zip(cases, map(int, done.stdout.split()), strict=True):
        assert size < peak < most, (case, peak / size)


@pytest.mark.parametrize("make", MAKERS[:4])
def test_loading(make: Maker, tmp_path: Path) -> None:
    make(tmp_path)
    path = next(path for path in tmp_path.iterdir())
    streamed = load_data(path, stream=True)
    whole = load_data(path, stream=False)
    assert streamed.facts.streamed
    assert streamed.facts.fingerprint != whole.facts.fingerprint
    assert replace(streamed.facts, streamed=False, fingerprint=whole.facts.fingerprint) == whole.facts
    for name in ("train", "validation", "test"):
        split: Any = getattr(streamed, name)
        assert isinstance(split, StreamedSplit)
        every = load_all(DataConfig(source=str(path), stream=False))
        rows = split.take(slice(None))
        assert torch.equal(rows.values, every.values[rows.ids])
        assert torch.equal(split.ids, rows.ids)
        assert (split.labels is None) == (every.labels is None)
        if every.labels is not None:
            assert torch.equal(split.labels, every.labels[rows.ids])
            assert torch.equal(rows.labels, split.labels)
    assert isinstance(load_all(DataConfig(source=str(path), stream=True)), StreamedSplit)
    # Folders of pieces stream where nobody says, the others do where they are large.
    assert isinstance(load_data(path).train, StreamedSplit) == (make in (zarr_array, parquet_folder))


def test_large_arrays_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array_file(tmp_path)
    assert not isinstance(load_data(tmp_path / "x.npy").train, StreamedSplit)
    monkeypatch.setattr("vae_pyro.data.readers.npy.STREAM_BYTES", 6000)
    assert isinstance(load_data(tmp_path / "x.npy").train, StreamedSplit)
    assert not isinstance(load_data(tmp_path / "x.npy", stream=False).train, StreamedSplit)


def test_what_cannot_be_streamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data set 'digits' is small, and cannot be streamed"):
        load_data("digits", stream=True)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        ValueError, match=r"cannot stream .*x.csv': expected a folder of images, a .npy file.* stream=False"
    ):
        load_data(tmp_path / "x.csv", stream=True)
    split = stream(array_file(tmp_path, np.stack([np.arange(1003)] * 3, 1)), scale="none")
    with pytest.raises(ValueError, match=r"x.npy' is streamed, and this requires all its values .*split.take\(slice"):
        _ = split.values
    with pytest.raises(ValueError, match="is streamed"):
        as_split(split, np.ones((1003, 3)))
    with pytest.raises(IndexError, match="rows 3 to 1003 are not all among 1003"):
        split.batch(torch.tensor([3, 1003]))
    with pytest.raises(ValueError, match=r"binarize requires intensities, got \[0, 1002\] without a known top"):
        stream(split.store, binarize="dynamic")
    assert as_split(split) is split
    assert "x.npy" in repr(split)
    assert fingerprint(split) == fingerprint(
        stream(array_file(tmp_path, np.stack([np.arange(1003)] * 3, 1)), scale="none")
    )
