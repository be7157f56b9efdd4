"""Streamed data: the same rows, bits and figures as in memory, in bounded memory."""

import pickle
import subprocess
import sys
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
from tests.vae_pyro.data.makers import MAKERS, Maker, array_file, parquet_folder, random_bytes, zarr_array
from vae_pyro import VAE, DataConfig, FitConfig, Split, VAEConfig, evaluate, fit, load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.dataset import stream
from vae_pyro.data.dealing import streamed
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.readers import store as stores
from vae_pyro.data.split import fingerprint
from vae_pyro.data.streams import windows
from vae_pyro.data.streams.split import StreamedSplit
from vae_pyro.svi.compiled_svi import CompiledSVI

SEED = 3


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 120 bytes and windows of 1,200, so that little data have many of both."""
    monkeypatch.setattr(stores, "BLOCK_BYTES", 120)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1200)


def batches_of(split: Split, size: int = 32, seed: int = SEED, **options: Any) -> list[tuple[Tensor, ...]]:
    return list(split.epoch(size, seed, BitStream(7), **options))


def numbered(path: Path, size: int = 1003) -> StreamedSplit:
    """Rows that tell their number."""
    return stream(array_file(path, np.stack([np.arange(size)] * 3, 1)), scale="none")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("options", [{}, {"binarize": "static"}, {"binarize": "threshold"}, {"dequantize": True}])
def test_fixed_observations_are_those_in_memory(make: Maker, options: dict[str, Any], tmp_path: Path) -> None:
    if make is parquet_folder and options:
        pytest.skip("real numbers without a known top")
    config = DataConfig(source="x", **options)
    split = streamed(config, make(tmp_path))
    resident = split.take(slice(None))
    assert type(resident) is ResidentSplit
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
    assert type(sample) is ResidentSplit
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


@pytest.mark.slow
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
