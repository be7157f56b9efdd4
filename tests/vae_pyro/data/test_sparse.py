"""Sparse data: the bits of the dense split, in memory of the entries and of a batch."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import sparse
from torch import Tensor

from analysis.density.elpd import elpd_of
from analysis.samples.leakage.check import held_out_check
from vae_pyro import VAE, FitConfig, Split, VAEConfig, evaluate, fit, load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.dataset import DataConfig, as_split, load_all
from vae_pyro.data.sparse import SparseRows, SparseSplit, is_sparse, is_sparse_file, read_sparse
from vae_pyro.data.split import Part, fingerprint
from vae_pyro.svi.compiled_svi import CompiledSVI

KINDS = [np.float32, np.float64, np.int64, np.int16, np.uint8, np.uint16, np.bool_]
INDEXES: list[Any] = [
    slice(None), slice(3, 9), slice(-4, None, 2), slice(5, 5), torch.tensor([4, 0, 4, 20]), torch.tensor([-1, 2]),
    torch.arange(23) % 3 == 0, torch.empty(0, dtype=torch.int64),
]  # fmt: skip


def counts(size: int = 23, columns: int = 7, seed: int = 0, rate: float = 0.4) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    x = random.poisson(rate, (size, columns)).astype(np.float32)
    x[min(2, size - 1)] = 0  # a row without entries
    x[min(4, size - 1)] = 3  # one without zeros
    return x


def both(x: np.ndarray[Any, Any], **options: Any) -> tuple[Split, SparseSplit]:
    dense = torch.as_tensor(x.astype(np.int64) if x.dtype.kind in "iu" and x.dtype != np.uint8 else x)
    dense = dense.to(torch.uint8) if dense.dtype == torch.bool else dense
    return Split(dense, **options), SparseSplit(sparse.csr_array(x), **options)


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


# --- rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INDEXES)
def test_rows_are_those_of_the_dense_matrix(index: Any) -> None:
    x = counts()
    rows = SparseRows.of(sparse.csr_array(x))
    assert torch.equal(rows[index], torch.from_numpy(x)[index])
    assert torch.equal(rows[-3], torch.from_numpy(x)[-3])
    with pytest.raises(IndexError, match="23"):
        rows[torch.tensor([23])]


@pytest.mark.parametrize("size", [3, 22, 24])
def test_a_mask_of_another_number_of_rows_is_refused(size: int) -> None:
    x = counts()
    mask = torch.ones(size, dtype=torch.bool)
    for rows in (torch.from_numpy(x), SparseRows.of(sparse.csr_array(x))):
        with pytest.raises(IndexError, match="mask"):
            rows[mask]


def test_rows_read_as_on_a_gpu_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, every row is read as if it were the longest, so that nothing waits for a length."""
    x = counts()
    rows = SparseRows.of(sparse.csr_array(x))
    monkeypatch.setattr(SparseRows, "device", property(lambda self: _Elsewhere()))
    monkeypatch.setattr(torch, "zeros", _on_cpu(torch.zeros))
    monkeypatch.setattr(torch, "arange", _on_cpu(torch.arange))
    index = torch.tensor([2, 0, 22, 0])  # the row of 7 entries is not among them, nor is the last entry in the middle
    found = rows.index_select(0, index)
    assert rows.longest == 7
    assert torch.equal(found, torch.from_numpy(x)[index])


class _Elsewhere:
    type = "cuda"


def _on_cpu(make: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> Tensor:
        return make(*args, **{key: value for key, value in kwargs.items() if key != "device"})

    return made


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_any_format_and_any_storage_of_a_matrix_is_the_same_data(kind: str) -> None:
    x = counts()
    wanted = SparseRows.of(sparse.csr_array(x))
    found = SparseRows.of(sparse.csr_array(x).asformat(kind))
    assert_same((found.start, found.column, found.entry), (wanted.start, wanted.column, wanted.entry))
    assert fingerprint(SparseSplit(found)) == fingerprint(SparseSplit(wanted))  # type: ignore[arg-type]


def test_duplicates_are_added_and_stored_zeros_left_out_of_a_copy() -> None:
    parts = (np.array([1.0, 2.0, 0.0, 4.0, 5.0]), np.array([3, 3, 0, 2, 1]), np.array([0, 3, 3, 5]))
    matrix = sparse.csr_matrix(parts, shape=(3, 4))
    rows = SparseRows.of(matrix)
    assert rows.nnz == 3
    assert rows[:].tolist() == [[0, 0, 0, 3], [0, 0, 0, 0], [0, 5, 4, 0]]
    assert matrix.nnz == 5  # the user's is as it was
    assert matrix.indices.tolist() == [3, 3, 0, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_stored_types_are_those_of_the_dense_split(kind: Any) -> None:
    dense, split = both(counts().astype(kind))
    assert split.values.dtype == dense.values.dtype
    assert torch.equal(split.head, dense.head)
    assert split.summary() == dense.summary()


def test_torch_sparse_tensors_and_what_is_not_sparse() -> None:
    x = torch.from_numpy(counts())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its CSR is in beta
        compressed = x.to_sparse_csr()
    for tensor in (x.to_sparse(), compressed):
        assert is_sparse(tensor)
        assert torch.equal(SparseRows.of(tensor)[:], x)
    assert torch.equal(SparseRows.of(x)[:], x)
    assert is_sparse(sparse.coo_matrix(x.numpy()))
    assert not is_sparse(x)
    assert not is_sparse(x.numpy())


@pytest.mark.parametrize("bad", [sparse.csr_array(np.ones((2, 2), complex)), sparse.coo_array(np.ones(3))])
def test_what_are_no_rows_of_numbers_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \(datum, column\) and of numbers wanted"):
        SparseRows.of(bad)


# --- the split ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"top": 3.0}, {"top": 3.0, "draw": "binarize"}])
def test_epochs_batches_and_parts_are_those_of_the_dense_split(options: dict[str, Any]) -> None:
    x = counts().clip(0, 3)
    labels, y = torch.arange(23), torch.arange(23) % 2
    dense, split = both(x, labels=labels, y=y, **options)
    assert len(split) == 23
    assert split.x_shape == dense.x_shape
    for part in (Part(0, 1), Part(1, 2)):
        epochs = [list(one.epoch(5, 3, BitStream(7), start=1, part=part)) for one in (dense, split)]
        for one, other in zip(*epochs, strict=True):
            assert_same(one, other)
            (a,), given = dense.observe(*one)
            (b,), also = split.observe(*other)
            assert_same((a, given["y"]), (b, also["y"]))
    for index in INDEXES:
        found = []
        for one in (dense, split):
            with seeded(1):
                batch, given = one.batch(index, torch.float64)
            found.append((batch, given["y"]))
        assert_same(*found)
        one, other = dense.take(index), split.take(index)
        assert type(other) is Split
        assert_same((one.values, one.ids, one.labels, one.y), (other.values, other.ids, other.labels, other.y))
    one, other = dense.sample(9, 4), split.sample(9, 4)
    assert_same((one.values, one.ids), (other.values, other.ids))
    one, other = dense.between(4, 30), split.between(4, 30)
    assert isinstance(other, SparseSplit)
    assert_same((one.values, one.ids, one.y), (other.values[:], other.ids, other.y))
    assert_same((split.between(2, 2).values[:],), (dense.between(2, 2).values,))
    assert torch.equal(split.dense().values, dense.values)
    assert split.to(torch.device("cpu")).summary() == dense.summary()
    one, other = dense.fixed(5), split.fixed(5)
    assert isinstance(other, SparseSplit)
    assert_same((one.values,), (other.values[:],))
    assert one.summary() == other.summary()
    assert one.space == other.space
    if split.draw == "binarize":
        assert other.values.nnz == int(one.values.sum())


@pytest.mark.parametrize(
    ("x", "top"),
    [
        (counts(), None),
        (counts() + 1, None),  # no zero: it is not in the range
        (-counts(), None),
        (np.zeros((3, 4), np.float32), None),
        (counts() * 0.5, None),
        (counts() * 0.5, 1.5),
        ((counts() > 0).astype(np.float32) * 2, 2.0),
        (np.full((3, 4), 2.0, np.float32), 2.0),
        (counts().astype(np.uint8), 3.0),
    ],
)
def test_the_summary_knows_of_zeros_that_are_not_stored(x: np.ndarray[Any, Any], top: float | None) -> None:
    dense, split = both(x, top=top)
    assert split.summary() == dense.summary()


def test_stored_zeros_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = sparse.csr_array(counts() + 1)
    matrix.data[5] = 0
    assert SparseSplit(matrix).summary().low == 0
    monkeypatch.setattr("vae_pyro.data.sparse._ENTRIES", 10)  # several blocks
    assert SparseSplit(matrix).summary() == Split(torch.from_numpy(matrix.toarray())).summary()


def test_values_that_are_not_finite_are_refused_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.data.sparse._ENTRIES", 10)
    x = counts()
    x[11, 2], x[11, 6], x[20, 0] = np.nan, np.inf, np.nan
    with pytest.raises(ValueError, match=r"3 values are not finite, the first nan at \(11, 2\)"):
        SparseSplit(sparse.csr_array(x)).summary()


def test_what_sparse_data_cannot_have_is_refused() -> None:
    rows = SparseRows.of(sparse.csr_array(counts()))
    with pytest.raises(ValueError, match="no mask: what is not stored is zero"):
        SparseSplit(rows, mask=torch.ones(23, 7, dtype=torch.bool))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dequantize=True makes every zero a number"):
        SparseSplit(rows, draw="dequantize")  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match=r"no 'flatten'.*split.take\(slice\(1000\)\)"):
        rows.flatten(1)
    with pytest.raises(ValueError, match="none of 0 data"):
        SparseSplit(sparse.csr_array((0, 3))).summary()  # type: ignore[arg-type]


def test_the_fingerprint_tells_values_places_and_classes() -> None:
    x = counts()
    split = both(x)[1]
    prints = {fingerprint(split), fingerprint(replace(split, y=torch.zeros(23, dtype=torch.int64)))}
    for change in ((0, 0, 9.0), (4, 3, 0.0)):
        other = x.copy()
        other[change[0], change[1]] = change[2]
        prints.add(fingerprint(both(other)[1]))
    prints.add(fingerprint(both(x[:, ::-1].copy())[1]))
    prints.add(fingerprint(both(np.pad(x, ((0, 0), (0, 1))))[1]))  # one more empty column
    assert len(prints) == 6


# --- fits and figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["poisson", "multinomial", "gaussian"])
def test_a_fit_and_its_figures_have_the_bits_of_the_dense_data(likelihood: str) -> None:
    dense, split = both(counts(120, 15))
    held, held_split = both(counts(30, 15, seed=1))
    config = VAEConfig(x_shape=(15,), latent_dim=2, likelihood=likelihood, encoder="mlp:hidden=[8]")
    found = []
    for train, test in ((dense, held), (split, held_split)):
        vae = VAE(config, seed=3)
        result = fit(vae, train, validation=test, config=FitConfig(epochs=2, batch_size=32, compile=False), seed=4)
        history = [{key: value for key, value in row.items() if key != "seconds"} for row in result.history]
        figures = evaluate(vae, test, num_draws=20, seed=5).summary()
        elpd = elpd_of(vae, test, num_draws=40, seed=6).summary()
        found.append((list(vae.state_dict().values()), history, figures, elpd))
    assert_same(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_an_epoch_of_the_compiled_step_is_that_of_the_stream_of_batches() -> None:
    dense, split = both(counts(64, 9))
    vae = VAE(VAEConfig(x_shape=(9,), latent_dim=2, likelihood="poisson", encoder="mlp:hidden=[8]"))
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.0)
    losses = []
    for one in (dense, split):
        svi = CompiledSVI(vae.model, vae.guide, optimizer, Trace_ELBO(), prepare=one.observe, compile=False)
        with seeded(0), pyro.get_param_store().scope():
            losses.append(svi.run_epoch(one, batch_size=16, seed=2))
    assert losses[0] == losses[1]


def test_leakage_is_looked_for_without_making_all_dense() -> None:
    dense, split = both(counts(80, 9))
    held, held_split = both(np.concatenate([counts(20, 9, seed=1), counts(80, 9)[:5]]))
    assert str(held_out_check(split, held_split, seed=0)) == str(held_out_check(dense, held, seed=0))


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("compressed", [True, False])
def test_files_of_save_npz(kind: str, compressed: bool, tmp_path: Path) -> None:
    x = counts()
    path = tmp_path / "x.npz"
    sparse.save_npz(path, sparse.csr_array(x).asformat(kind), compressed=compressed)
    assert is_sparse_file(path)
    matrix, labels = read_sparse(path)
    assert labels is None
    assert torch.equal(SparseRows.of(matrix)[:], torch.from_numpy(x))


def test_labels_in_the_file_and_files_that_hold_none(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    matrix = sparse.csr_matrix(counts())
    parts = {"format": "csr", "shape": matrix.shape, "data": matrix.data, "indices": matrix.indices}
    np.savez(path, **parts, indptr=matrix.indptr, y=np.array(["b", "a"] * 11 + ["b"]))
    assert read_sparse(path)[1].tolist() == ["b", "a"] * 11 + ["b"]
    data = load_all(DataConfig(source=str(path)))
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0] * 11 + [1]
    np.savez(path, **parts, indptr=matrix.indptr, y=np.arange(3))
    with pytest.raises(ValueError, match=r"y has shape \(3,\), the matrix has 23 rows"):
        read_sparse(path)
    np.savez(path, **parts, indptr=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="cannot read the sparse matrix"):  # no pickle is opened
        read_sparse(path)
    np.savez(path, x=counts())
    assert not is_sparse_file(path)
    path.write_bytes(b"nothing")
    assert not is_sparse_file(path)


def test_a_file_is_loaded_split_and_prepared_as_the_dense_file_is(tmp_path: Path) -> None:
    x = counts(60, 7).clip(0, 1)
    sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_array(x))
    np.save(tmp_path / "dense.npy", x)
    for options in ({}, {"binarize": "dynamic"}, {"binarize": "threshold"}, {"validation_fraction": 0.0}):
        found = [load_data(tmp_path / name, **options) for name in ("sparse.npz", "dense.npy")]
        assert found[0].facts["sparse"]
        assert found[0].facts["entries"] == np.count_nonzero(x)
        for name in ("train", "validation", "test"):
            ours, theirs = (getattr(data, name) for data in found)
            assert isinstance(ours, SparseSplit)
            assert_same((ours.values[:], ours.ids), (theirs.values, theirs.ids))
            assert (ours.top, ours.draw, ours.space) == (theirs.top, theirs.draw, theirs.space)
        for key in ("x_shape", "sizes", "range", "integral", "space", "kind"):
            assert found[0].facts[key] == found[1].facts[key]
        assert_same((load_all(found[0].config).values[:],), (load_all(found[1].config).values,))
    with pytest.raises(ValueError, match="dequantize=True"):
        load_data(tmp_path / "sparse.npz", dequantize=True, scale="none")


def test_labels_of_a_file_are_given_to_the_programs(tmp_path: Path) -> None:
    matrix = sparse.csr_matrix(counts(60))
    parts = {"format": "csr", "shape": matrix.shape, "data": matrix.data, "indices": matrix.indices}
    np.savez(tmp_path / "x.npz", **parts, indptr=matrix.indptr, y=np.arange(60) % 2)
    train = load_data(tmp_path / "x.npz", given_labels=4).train
    assert isinstance(train, SparseSplit)
    assert sorted(train.y[train.y >= 0].tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_matrix])
def test_a_matrix_goes_where_an_array_goes(form: Any) -> None:
    x, held = counts(60), counts(20, seed=1)
    config = VAEConfig(x_shape=(7,), latent_dim=2, likelihood="poisson", encoder="mlp:hidden=[8]")
    found = []
    for train, test in ((x, held), (form(x), form(held))):
        vae = VAE(config, seed=3)
        fit(vae, train, validation=test, config=FitConfig(epochs=1, batch_size=32, compile=False), seed=4)
        means = vae.encode(test).mean.detach()
        figures = evaluate(vae, test, num_draws=20).summary()
        found.append((means, figures, elpd_of(vae, test, num_draws=40).summary()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert isinstance(as_split(form(x)), SparseSplit)
    with pytest.raises(ValueError, match="sparse data have no mask"):
        as_split(form(x), mask=np.ones((60, 7), bool))


# --- memory -------------------------------------------------------------------------------------------------------

_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))  # what would take the whole machine ends before it has
import numpy as np
from pyro.infer import Trace_ELBO
from scipy import sparse
import torch
from benchmarks.memory import peak
from vae_pyro import VAE, VAEConfig, evaluate
from vae_pyro.data.dataset import fingerprint
from vae_pyro.data.sparse import SparseSplit, read_sparse
from vae_pyro.core.minibatches import BitStream
from vae_pyro.svi.compiled_svi import CompiledSVI
from vae_pyro.training.fitting import checked, initialize

size, columns, each = 200_000, 20_000, 20
random = np.random.default_rng(0)
rows, where = np.repeat(np.arange(size), each), random.integers(columns, size=size * each)
values = random.integers(1, 4, size=size * each).astype(np.float32)
sparse.save_npz(sys.argv[1], sparse.csr_array((values, (rows, where)), shape=(size, columns)), compressed=False)
del rows, where, values
split = SparseSplit(read_sparse(sys.argv[1])[0])
fingerprint(split)
vae = VAE(VAEConfig(x_shape=(columns,), latent_dim=4, likelihood="poisson", encoder="mlp:hidden=[32]"))
checked(vae, split)
initialize(vae, split, 0)
svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO(), prepare=split.observe,
                  compile="never")
losses = [float(svi.step_tensor(*raw)) for raw, _ in zip(split.epoch(100, 1, BitStream(0)), range(5))]
assert all(np.isfinite(losses))
assert np.isfinite(evaluate(vae, split.between(100, 120), num_draws=10).summary()["log_px"])
print(peak() / 2**30)
"""


def test_memory_is_that_of_the_entries(tmp_path: Path) -> None:
    """200,000 x 20,000 at 1e-3: 16 GB as dense float32, 32 GB as float64; here 3 GiB at most, libraries included."""
    child = [sys.executable, "-c", _CHILD, str(tmp_path / "x.npz")]
    ended = subprocess.run(child, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert float(ended.stdout) < 3.0
