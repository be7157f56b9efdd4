"""Streamed data: the same rows, bits and figures as in memory, at any place of an epoch, in bounded memory."""

import gc
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.utils.data import TensorDataset

from analysis.density.elpd import elpd_of
from analysis.draws.weights import weigh
from tests.vae_pyro.data.test_stores import (
    MAKERS,
    Maker,
    array_file,
    image_folder,
    parquet_folder,
    random_bytes,
    zarr_array,
)
from vae_pyro import VAE, DataConfig, FitConfig, Split, VAEConfig, evaluate, fit, load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.dataset import as_split, load_all, stream
from vae_pyro.data.split import Part, fingerprint
from vae_pyro.data.streams import stores, windows
from vae_pyro.data.streams.split import StreamedSplit, uniform
from vae_pyro.data.streams.windows import Order
from vae_pyro.svi.compiled_svi import CompiledSVI

SEED = 3


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 120 bytes and windows of 1,200, so that little data have many of both."""
    monkeypatch.setattr(stores, "BLOCK_BYTES", 120)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1200)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    if readers():  # a cycle may keep an iterator; collecting takes most of a second, so only then
        gc.collect()
    assert readers() == []


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "reads ahead" in thread.name]


def batches_of(split: Split, size: int = 32, seed: int = SEED, **options: Any) -> list[tuple[Tensor, ...]]:
    return list(split.epoch(size, seed, BitStream(7), **options))


def numbered(path: Path, size: int = 1003) -> StreamedSplit:
    """Rows that tell their number."""
    return stream(array_file(path, np.stack([np.arange(size)] * 3, 1)), scale="none")


def rows_of(epoch: list[tuple[Tensor, ...]]) -> list[int]:
    return torch.cat([batch[0][:, 0] for batch in epoch]).tolist()


# --- the order of an epoch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.usefixtures("small")
def test_an_epoch_has_every_datum_once(make: Maker, tmp_path: Path) -> None:
    store = make(tmp_path)
    split = stream(store, scale="none")
    epoch = batches_of(split)
    assert [len(batch[0]) for batch in epoch[:-1]] == [32] * (len(epoch) - 1)
    assert len(epoch[-1][0]) == (len(store) % 32 or 32)
    found = torch.cat([batch[0] for batch in epoch]).flatten(1).numpy()
    whole = store.read(0, len(store)).reshape(len(store), -1)
    assert not np.array_equal(found, whole)
    np.testing.assert_array_equal(np.sort(found.view([("", found.dtype)] * found.shape[1]).ravel()),
                                  np.sort(whole.view([("", whole.dtype)] * whole.shape[1]).ravel()))  # fmt: skip


@pytest.mark.usefixtures("small")
def test_the_seed_alone_decides_the_order(tmp_path: Path) -> None:
    split = numbered(tmp_path)
    order = rows_of(batches_of(split))
    assert sorted(order) == list(range(1003))
    assert rows_of(batches_of(split)) == order
    assert rows_of(batches_of(split, size=100)) == order  # the size of batches does not
    assert rows_of(batches_of(split, seed=4)) != order
    assert len(Order(split.store, SEED)) > 15


@pytest.mark.usefixtures("small")
def test_an_epoch_goes_on_at_any_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = stream(array_file(tmp_path), scale="unit", binarize="dynamic")
    whole = batches_of(split)
    read: list[int] = []
    of_store = type(split.store).read

    def watch(self: Any, start: int, stop: int) -> Any:
        read.append(stop - start)
        return of_store(self, start, stop)

    monkeypatch.setattr(type(split.store), "read", watch)
    order = Order(split.store, SEED)
    inside = int(order.bounds[2] // 32) + 1
    assert order.bounds[2] < inside * 32 < order.bounds[3]  # a batch that begins within a window
    for start in (0, 1, inside, len(whole) - 1, len(whole)):
        read.clear()
        rest = batches_of(split, start=start)
        assert len(rest) == len(whole) - start
        for one, other in zip(rest, whole[start:], strict=True):
            for a, b in zip(one, other, strict=True):  # values, and the bits that binarise them
                assert torch.equal(a, b)
        # Windows before the batch are not read.
        first = order.window_of(start * 32) if rest else len(order)
        assert sum(read) == len(split) - order.bounds[first]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("of", [2, 3, 40])
def test_parts_are_disjoint_and_together_the_batch(of: int, tmp_path: Path) -> None:
    split = numbered(tmp_path)
    whole = batches_of(split)
    parts = [batches_of(split, part=Part(rank, of), start=2) for rank in range(of)]
    for batch, *shares in zip(whole[2:], *parts, strict=True):
        assert torch.equal(torch.cat([share[0] for share in shares]), batch[0])


@pytest.mark.usefixtures("small")
def test_batches_of_several_windows(tmp_path: Path) -> None:
    split = numbered(tmp_path)
    order = rows_of(batches_of(split))
    epoch = batches_of(split, size=400)
    assert [len(batch[0]) for batch in epoch] == [400, 400, 203]
    assert rows_of(epoch) == order
    assert rows_of(batches_of(split, size=5000)) == order


def test_rows_in_the_order_of_their_class_come_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1,000 blocks of one class each, 256 of them in a window: the proportions of a MNIST of 170,000 rows.
    monkeypatch.setattr(stores, "BLOCK_BYTES", 160)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 256 * 160)
    classes, per_block, size, batch = 10, 20, 20_000, 128
    labels = np.repeat(np.arange(classes), size // classes)
    split = stream(array_file(tmp_path, np.stack([labels] * 1, 1).astype(np.int64)), scale="none")
    assert split.store.block == per_block

    def excess(epochs: list[list[tuple[Tensor, ...]]]) -> float:
        """Variance of the number of data of a class in a batch, over that of a batch drawn at random."""
        counts = np.concatenate(
            [[np.bincount(b[0][:, 0].numpy(), minlength=classes) for b in epoch[:-1]] for epoch in epochs]
        )
        share = 1 / classes
        return float(((counts - batch * share) ** 2).mean() / (batch * share * (1 - share)))

    # Sampling of two stages: 1 + (b - 1) rho, where two rows of a window are of one class more often than two rows of
    # all by rho = (1 - W / B) / W for windows of W of B blocks.
    expected = 1 + (batch - 1) * (1 - 256 / 1000) / 256
    found = excess([batches_of(split, size=batch, seed=seed) for seed in range(20)])
    assert expected == pytest.approx(1.37, abs=0.01)
    # 80 windows of 9 degrees of freedom each decide it: a standard error below 5 %, and 5 of them.
    assert found == pytest.approx(expected, rel=0.25)
    in_order = torch.from_numpy(labels[:, None]).split(batch)
    assert excess([[(rows,) for rows in in_order]]) > 50


# --- the same as in memory ----------------------------------------------------------------------------------------


def test_uniform_numbers_at_any_place_of_numpys_stream() -> None:
    whole = np.random.default_rng(9).random(1001, dtype=np.float32)
    for start in (0, 1, 2, 7, 500, 999, 1000):
        for count in (0, 1, (1001 - start) // 2, 1001 - start):
            np.testing.assert_array_equal(uniform(9, start, count), whole[start : start + count])


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("options", [{}, {"binarize": "static"}, {"binarize": "threshold"}, {"dequantize": True}])
def test_fixed_observations_are_those_in_memory(make: Maker, options: dict[str, Any], tmp_path: Path) -> None:
    if make is parquet_folder and options:
        pytest.skip("real numbers without a known top")
    config = DataConfig(source="x", **options)
    split = config.streamed(make(tmp_path))
    resident = split.take(slice(None))
    assert type(resident) is Split
    assert split.summary() == resident.summary()
    fixed, wanted = split.fixed(11), resident.fixed(11)
    assert (fixed.draw, fixed.top, fixed.space) == (wanted.draw, wanted.top, wanted.space)
    assert fixed.head.dtype == wanted.values.dtype
    again = pickle.loads(pickle.dumps(fixed.fixed(12)))  # nothing is left to draw; workers get it so
    for rows in (slice(None), slice(7, 30), slice(3, 3), torch.tensor([5, 2, 40, 41, 2])):
        for one in (fixed, again):
            assert torch.equal(one.batch(rows)[0], wanted.batch(rows)[0])
            assert torch.equal(one.take(rows).values, wanted.take(rows).values)
            assert torch.equal(one.take(rows).ids, wanted.take(rows).ids)
    ours, theirs = fixed.summary(), wanted.summary()
    assert (ours.integral, ours.step) == (theirs.integral, theirs.step)
    assert ours.low <= theirs.low
    assert ours.high >= theirs.high
    epoch = torch.cat([batch[0] for batch in batches_of(fixed)])  # in another order, and the same bits
    assert torch.equal(epoch.flatten(1).double().sum(1).sort()[0], wanted.values.flatten(1).double().sum(1).sort()[0])


def test_random_observations_are_drawn_as_in_memory(tmp_path: Path) -> None:
    split = stream(array_file(tmp_path), binarize="dynamic")
    resident = split.take(slice(None))
    with seeded(0):
        ours = split.batch(slice(3, 60))[0]
    with seeded(0):
        assert torch.equal(ours, resident.batch(slice(3, 60))[0])
    index = torch.tensor([4, 900, 17])
    for a, b in zip(split.raw(index, BitStream(1)), resident.raw(index, BitStream(1)), strict=True):
        assert torch.equal(a, b)
    (x,), _ = split.observe(*next(split.epoch(8, 0, BitStream(1))))
    assert set(x.unique().tolist()) == {0.0, 1.0}


def test_a_sample_is_random_and_in_memory(tmp_path: Path) -> None:
    split = numbered(tmp_path, 60_000)
    sample = split.sample(500, seed=0)
    assert type(sample) is Split
    assert len(sample) == len(set(sample.ids.tolist())) == 500
    assert torch.equal(sample.values[:, 0], sample.ids)
    assert torch.equal(split.sample(500, seed=0).ids, sample.ids)
    assert not torch.equal(split.sample(500, seed=1).ids, sample.ids)
    # The mean of 500 of 60,000 numbers; 5 standard errors, in the first half of the sample as well.
    error = 60_000 / 12**0.5 / 250**0.5
    assert abs(float(sample.ids[:250].double().mean()) - 30_000) < 5 * error
    assert sorted(split.sample(10**6, seed=0).ids.tolist()) == list(range(60_000))
    assert len(stream(zarr_array(tmp_path)).sample(999, seed=0)) == 999


def test_evaluation_and_analysis_stream(tmp_path: Path) -> None:
    data = load_data(str(array_file(tmp_path).path), stream=True, binarize="dynamic")
    vae = VAE(VAEConfig(x_shape=(3, 2), latent_dim=2, encoder="mlp:hidden=[8]"))
    for split in (data.test, data.split("train")):
        resident = split.take(slice(None))
        ours, theirs = evaluate(vae, split, num_draws=30), evaluate(vae, resident, num_draws=30)
        np.testing.assert_array_equal(ours.log_px, theirs.log_px)
        np.testing.assert_array_equal(ours.activity, theirs.activity)
    one = weigh(vae, split, lambda block: block.log_weight, num_draws=5, seed=0)
    other = weigh(vae, resident, lambda block: block.log_weight, num_draws=5, seed=0)
    np.testing.assert_array_equal(np.concatenate(one, 1), np.concatenate(other, 1))
    one, other = elpd_of(vae, split, num_draws=30), elpd_of(vae, resident, num_draws=30)
    np.testing.assert_array_equal(one.pointwise, other.pointwise)
    np.testing.assert_array_equal(one.ids, other.ids)
    assert one.fingerprint == other.fingerprint


def test_a_fit_streams_and_resumes_to_the_bits(tmp_path: Path) -> None:
    data = load_data(str(array_file(tmp_path).path), stream=True, binarize="dynamic")
    build = VAEConfig(x_shape=(3, 2), latent_dim=2, encoder="mlp:hidden=[8]")
    config = FitConfig(epochs=3, batch_size=100, checkpoint_seconds=0, compile=False)

    def go(**options: Any) -> Any:
        return fit(VAE(build), data.train, validation=data.validation, config=config, data=data, **options)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyError("stop")

    whole = go()
    with pytest.raises(KeyError, match="stop"):
        go(out=tmp_path / "run", on_epoch=stop)
    rest = go(out=tmp_path / "run", resume=True)
    for one, other in zip(whole.history, rest.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    dataset = TensorDataset(torch.from_numpy(random_bytes(300, 4).astype(np.float32)))
    fitted = fit(VAE(VAEConfig(x_shape=(4,), latent_dim=1, likelihood="gaussian")), stream(dataset), config=config)
    assert fitted.epochs == 3


# --- loading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS[:4])
def test_loading(make: Maker, tmp_path: Path) -> None:
    make(tmp_path)
    path = next(path for path in tmp_path.iterdir())
    streamed = load_data(path, stream=True)
    whole = load_data(path, stream=False)
    assert streamed.facts.pop("streamed")
    assert streamed.facts.pop("fingerprint") != whole.facts.pop("fingerprint")
    assert streamed.facts == whole.facts
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
    monkeypatch.setattr("vae_pyro.data.dataset._STREAM_BYTES", 6000)
    assert isinstance(load_data(tmp_path / "x.npy").train, StreamedSplit)
    assert not isinstance(load_data(tmp_path / "x.npy", stream=False).train, StreamedSplit)


def test_what_cannot_be_streamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data set 'digits' is small, and cannot be streamed"):
        load_data("digits", stream=True)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"cannot stream .*x.csv': expected a .npy file, a zarr folder.* stream=False"):
        load_data(tmp_path / "x.csv", stream=True)
    split = numbered(tmp_path)
    with pytest.raises(ValueError, match=r"x.npy' is streamed, and this wants all its values .*split.take\(slice"):
        _ = split.values
    with pytest.raises(ValueError, match="is streamed"):
        as_split(split, np.ones((1003, 3)))
    with pytest.raises(IndexError, match="rows 3 to 1003 are wanted of 1003"):
        split.batch(torch.tensor([3, 1003]))
    with pytest.raises(ValueError, match=r"binarize wants intensities, got \[0, 1002\] without a known top"):
        stream(split.store, binarize="dynamic")
    assert as_split(split) is split
    assert "x.npy" in repr(split)
    assert fingerprint(split) == fingerprint(numbered(tmp_path))


def test_bytes_are_not_passed_over_for_their_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = array_file(tmp_path, random_bytes(50_000, 10, 10))
    monkeypatch.setattr(stores, "_PASS_BYTES", 100_000)
    read: list[int] = []
    of_store = type(store).read
    monkeypatch.setattr(type(store), "read", lambda *a: read.append(a[2] - a[1]) or of_store(*a))
    summary = stream(store).summary()
    assert (summary.low, summary.high, summary.step, summary.integral) == (0, 1, 1 / 255, False)
    assert sum(read) < 5000
    assert stream(store, scale="none").summary().high == 255
    assert sum(read) > 50_000


# --- threads, errors, memory --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_no_thread_outlives_its_epoch(tmp_path: Path) -> None:
    split = numbered(tmp_path)
    epoch: Any = split.epoch(10, 0, BitStream(0))
    assert readers() == []  # nothing is read before a batch is asked for
    next(epoch)
    assert len(readers()) == 1
    time.sleep(0.1)  # it has read ahead, and waits for a buffer
    epoch.close()
    assert readers() == []
    abandoned = split.epoch(10, 0, BitStream(0))
    next(abandoned)
    del abandoned
    assert readers() == []
    epoch = split.epoch(10, 0, BitStream(0))
    for _ in range(101):  # as many as there are, and no more: the generator is not exhausted
        next(epoch)
    assert len(readers()) <= 1
    del epoch


@pytest.mark.usefixtures("small")
def test_errors_of_the_thread_are_raised_where_batches_are_used(tmp_path: Path) -> None:
    class Breaks(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            if index == 700:
                raise OSError("disk")
            return super().__getitem__(index)

    split = stream(Breaks(torch.zeros(1000, 3)))
    taken: list[tuple[Tensor, ...]] = []
    with pytest.raises(ValueError, match="Breaks dataset: item 700 cannot be read, OSError: disk"):
        taken.extend(split.epoch(10, 0, BitStream(0)))
    assert readers() == []
    cut = numbered(tmp_path)
    file = tmp_path / "x.npy"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match="x.npy', rows .* the file has been cut"):
        batches_of(cut)
    images = stream(image_folder(tmp_path))
    (tmp_path / "pictures" / "odd" / "31.png").unlink()
    with pytest.raises(ValueError, match="cannot read the image .*31.png"):
        batches_of(images)


PEAK = """
import sys, resource, torch
from vae_pyro import load_data
from vae_pyro.data.streams import windows
from vae_pyro.core.minibatches import BitStream
windows.WINDOW_BYTES = 1 << 22
torch.set_num_threads(1)
data = load_data(sys.argv[1], stream=True, scale="none", binarize="none")
rows = 0
for epoch in range(2):
    for batch in data.train.epoch(128, epoch, BitStream(0)):
        rows += len(batch[0])
for split in (data.validation, data.split("train")):
    for start in range(0, len(split), 2000):
        rows += len(split.batch(slice(start, start + 2000))[0])
data.train.sample(1000, seed=0), data.train.summary()
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_is_flat_in_the_number_of_data(tmp_path: Path) -> None:
    peaks = {}
    for size in (25_600, 256_000):  # 20 MB and 200 MB
        with (tmp_path / "x.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (size, 784)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(size // 12_800):
                file.write(random_bytes(12_800, 784).tobytes())
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path / "x.npy")], check=True, capture_output=True, text=True
        )
        rows, peak = map(int, done.stdout.split())
        assert rows == 3 * round(size * 0.72) + round(size * 0.08)
        peaks[size] = peak / 1024
    # Both have two windows of 4 MiB; the larger adds numbers for its blocks and rows, 0.1 MB, and the allocator's
    # noise. Holding or mapping the data would add 170.
    assert peaks[256_000] - peaks[25_600] < 20


@pytest.mark.cuda
@pytest.mark.usefixtures("small")
def test_windows_on_a_gpu(tmp_path: Path) -> None:
    split = numbered(tmp_path)
    ours = split.to(torch.device("cuda")).epoch(32, SEED, BitStream(7, torch.device("cuda")))
    for one, other in zip(ours, batches_of(split), strict=True):
        assert one[0].device.type == "cuda"
        assert torch.equal(one[0].cpu(), other[0])


def test_an_epoch_of_compiled_steps_reads_the_stream_in_its_own_order(tmp_path: Path) -> None:
    values = np.arange(700, dtype=np.float32).reshape(100, 7) / 700
    np.save(tmp_path / "x.npy", values)
    split = load_data(tmp_path / "x.npy", stream=True, validation_fraction=0.0, test_fraction=0.5).train
    assert isinstance(split, StreamedSplit)
    model = VAE(VAEConfig(x_shape=(7,), latent_dim=1, likelihood="gaussian", encoder={"name": "mlp", "hidden": [4]}))
    seen: list[float] = []

    def prepare(x: torch.Tensor) -> Any:
        seen.extend(x[:, 0].tolist())
        return split.observe(x)

    svi = CompiledSVI(
        model.model, model.guide, torch.optim.SGD(model.parameters(), lr=0.0), Trace_ELBO(), prepare=prepare,
        compile="never",
    )  # fmt: skip
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        mean = svi.run_epoch(split, batch_size=8, seed=5)
        whole, seen[:] = list(seen), []
        svi.run_epoch(split, batch_size=8, seed=5, drop_last=True)
    assert np.isfinite(mean)
    assert len(split) == 50
    kept = split.take(slice(None)).values[:, 0].tolist()
    assert sorted(whole) == sorted(kept)
    assert whole != kept
    assert seen == whole[:48]


@pytest.mark.parametrize("make", MAKERS)
def test_consecutive_data_stay_where_they_are(tmp_path: Path, make: Maker, small: None) -> None:
    whole = StreamedSplit(make(tmp_path), top=255.0, draw="binarize").fixed(SEED)
    some = whole.between(13, 41)
    assert isinstance(some, StreamedSplit)
    assert len(some) == 28
    assert torch.equal(some.take(slice(None)).values, whole.take(slice(13, 41)).values)
    assert torch.equal(some.ids, whole.ids[13:41])
    seen = torch.cat([raw[0] for raw in some.epoch(5, 1, BitStream(0))]).flatten(1)
    assert sorted(seen.tolist()) == sorted(whole.take(slice(13, 41)).values.flatten(1).tolist())
    assert fingerprint(some) != fingerprint(whole.between(13, 40))
