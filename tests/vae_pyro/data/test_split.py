"""Every split stands in for every other: the same calls, the same bits, and a few lines when it is printed."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from vae_pyro import VAE, FitConfig, Split, StreamedSplit, VAEConfig, evaluate, fit, load_data
from vae_pyro.core.minibatches import BitStream, Part
from vae_pyro.data.dataset import as_split, stream
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows
from vae_pyro.data.split import fingerprint, visible

SIZE, WIDTH = 57, 5


def values() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).poisson(0.7, (SIZE, WIDTH)).astype(np.float32)


def resident(path: Path) -> Split:
    return Split(torch.from_numpy(values()))


def sparse_rows(path: Path) -> Split:
    return SparseSplit(SparseRows.of(sparse.csr_array(values())))


def streamed(path: Path) -> Split:
    np.save(path / "x.npy", values())
    return stream(path / "x.npy")


type Make = Callable[[Path], Split]
MAKERS: list[Make] = [resident, sparse_rows, streamed]
every_split = pytest.mark.parametrize("make", MAKERS)


def test_the_class_of_all_splits_makes_one_in_memory() -> None:
    x = torch.arange(6.0).reshape(3, 2)
    split = Split(x, mask=x > 1, space="metres")
    assert type(split) is ResidentSplit
    assert isinstance(split, Split)
    assert not isinstance(split, StreamedSplit)
    assert split.mask is not None
    assert (split.space, split.space.kind) == ("metres", "named")
    with pytest.raises(ValueError, match=r"mask has shape \(3, 1\), the data \(3, 2\)"):
        Split(x, mask=x[:, :1] > 1)
    again = pickle.loads(pickle.dumps(split))
    assert (type(again), fingerprint(again), again.space) == (ResidentSplit, fingerprint(split), split.space)


@every_split
def test_what_every_split_can_do(make: Make, tmp_path: Path) -> None:
    split, whole = make(tmp_path), torch.from_numpy(values())
    classes = torch.arange(SIZE) % 3 - 1
    assert (len(split), split.x_shape, split.dtype, split.device.type) == (SIZE, (WIDTH,), torch.float32, "cpu")
    assert torch.equal(split.ids, torch.arange(SIZE))
    assert (split.labels, split.mask, split.y) == (None, None, None)
    given = split.replace(y=classes, space="counts")
    assert given.space == "counts"
    assert split.y is None
    for index in (slice(None), slice(3, 20, 4), torch.tensor([5, 0, 5, 56]), torch.arange(SIZE) % 2 == 0):
        assert torch.equal(split.stored(index), whole[index])
        x, beside = given.batch(index, torch.float64)
        assert torch.equal(x, whole[index].double())
        assert torch.equal(beside["y"], classes[index])
        taken = given.take(index)
        assert taken.resident
        assert torch.equal(taken.stored(slice(None)), whole[index])
        assert taken.y is not None
        assert torch.equal(taken.y, classes[index])
        assert torch.equal(taken.ids, torch.arange(SIZE)[index])
    assert torch.equal(split.head, whole[:1])
    some = given.between(10, 31)
    assert (type(some), some.streamed) == (type(split), split.streamed)
    assert torch.equal(some.stored(slice(None)), whole[10:31])
    assert torch.equal(some.given(slice(None))["y"], classes[10:31])
    assert split.summary() == Split(whole).summary()
    assert fingerprint(given) != fingerprint(split) != fingerprint(some)
    assert as_split(split) is split
    x, beside = given.batch(slice(None))
    assert torch.equal(visible(x, beside), whole)
    assert split.to(torch.device("cpu")).summary() == split.summary()
    assert len(split.sample(9, seed=1)) == len(set(split.sample(9, seed=1).ids.tolist())) == 9


@every_split
@pytest.mark.parametrize("batch_size", [8, 100])
def test_epochs_hand_out_each_datum_with_its_class(make: Make, batch_size: int, tmp_path: Path) -> None:
    whole = values()
    split = make(tmp_path).replace(y=torch.arange(SIZE), draw="binarize", top=6.0)
    raw = list(split.epoch(batch_size, 3, BitStream(1)))
    order = torch.cat([batch[2] for batch in raw])
    assert order.sort().values.tolist() == list(range(SIZE)) != order.tolist()
    assert torch.equal(torch.cat([batch[0] for batch in raw]), torch.from_numpy(whole)[order])
    (x,), given = split.observe(*raw[0])
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(given["y"], raw[0][2])
    shares = [list(split.epoch(batch_size, 3, BitStream(1), part=Part(rank, 2))) for rank in range(2)]
    for batch, one, other in zip(raw, *shares, strict=True):
        assert torch.equal(torch.cat([one[2], other[2]]), batch[2])
    fixed = split.fixed(4)
    assert (fixed.draw, fixed.top) == ("none", None)
    dense = Split(torch.from_numpy(whole), draw="binarize", top=6.0)
    assert torch.equal(fixed.stored(slice(None)), dense.fixed(4).stored(slice(None)))
    assert fixed.y is not None
    assert torch.equal(fixed.y, torch.arange(SIZE))


@every_split
def test_models_with_classes_take_every_split(make: Make, tmp_path: Path) -> None:
    split = make(tmp_path).replace(y=torch.arange(SIZE) % 2)
    config = VAEConfig(
        x_shape=(WIDTH,), latent_dim=1, likelihood="poisson", encoder="mlp:hidden=[4]",
        structure="conditional:num_classes=2",
    )  # fmt: skip
    vae = fit(VAE(config), split, config=FitConfig(epochs=2, batch_size=20, compile=False), progress=False).vae
    ours, theirs = (evaluate(vae, one, num_draws=10).log_px for one in (split, split.take(slice(None))))
    np.testing.assert_array_equal(ours, theirs)
    other = evaluate(vae, split.replace(y=1 - torch.arange(SIZE) % 2), num_draws=10).log_px
    assert not np.array_equal(ours, other)  # the classes reach the programs


def test_what_data_cannot_have_is_said(tmp_path: Path) -> None:
    mask = torch.ones(SIZE, WIDTH, dtype=torch.bool)
    for make, message in ((sparse_rows, "sparse data have no mask"), (streamed, "streamed, and takes no mask")):
        with pytest.raises(ValueError, match=message):
            as_split(make(tmp_path), mask)
        with pytest.raises(ValueError, match="mask has shape"):
            as_split(make(tmp_path), mask[:, :1])
        assert make(tmp_path).replace(mask=None).mask is None
    assert not hasattr(streamed(tmp_path), "values")
    with pytest.raises(ValueError, match="is streamed, and this requires all its values"):
        _ = streamed(tmp_path).values  # type: ignore[attr-defined]


@every_split
def test_a_split_is_printed_in_a_few_lines(make: Make, tmp_path: Path) -> None:
    split = make(tmp_path).replace(y=torch.zeros(SIZE, dtype=torch.int64))
    assert f"57 data of shape ({WIDTH},)" in repr(split)
    assert "\n" not in repr(split)
    lines = str(split).splitlines()
    assert 2 < len(lines) < 6
    assert all(len(line) < 160 for line in lines)
    assert lines[-1] == "  beside the data: y"
    where = {resident: "float32 on cpu", sparse_rows: "entries", streamed: "streamed from"}[make]
    assert where in lines[0]


def test_a_data_set_is_printed_in_a_few_lines() -> None:
    data = load_data("digits", binarize="dynamic", given_labels=50)
    assert repr(data) == "Dataset(digits: image, 1 x 8 x 8; 1,294 train, 144 validation, 359 test)"
    lines = str(data).splitlines()
    assert lines[:2] == ["digits: image, 1 x 8 x 8", "  splits    train 1,294, validation 144, test 359"]
    assert "yes; given for 50 training data" in str(data)
    assert len(lines) < 10
    html = data._repr_html_()
    assert html.startswith("<table>")
    assert "<th>splits</th><td>train 1,294, validation 144, test 359</td>" in html
