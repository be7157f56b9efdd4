"""The order of an epoch over streamed data."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from tests.vae_pyro.data.makers import (
    MAKERS,
    Maker,
    array_file,
    image_folder,
)
from vae_pyro import Split
from vae_pyro.core.minibatches import BitStream, Part
from vae_pyro.data.dataset import stream
from vae_pyro.data.readers import store as stores
from vae_pyro.data.streams import windows
from vae_pyro.data.streams.split import StreamedSplit
from vae_pyro.data.streams.windows import Order

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


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [32, 400])
def test_classes_follow_their_rows_through_windows(size: int, tmp_path: Path) -> None:
    split = numbered(tmp_path).replace(y=torch.arange(1003))
    for epoch in (batches_of(split, size), batches_of(split, size, start=2), batches_of(split.between(100, 900), size)):
        for values, y in epoch:
            assert torch.equal(values[:, 0], y)
    shares = [batches_of(split, size, part=Part(rank, 3)) for rank in range(3)]
    assert sorted(torch.cat([y for share in shares for _, y in share]).tolist()) == list(range(1003))


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


@pytest.mark.cuda
@pytest.mark.usefixtures("small")
def test_windows_on_a_gpu(tmp_path: Path) -> None:
    split = numbered(tmp_path)
    ours = split.to(torch.device("cuda")).epoch(32, SEED, BitStream(7, torch.device("cuda")))
    for one, other in zip(ours, batches_of(split), strict=True):
        assert one[0].device.type == "cuda"
        assert torch.equal(one[0].cpu(), other[0])
