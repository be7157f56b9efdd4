"""Files of sparse matrices: read, split and prepared as the dense file is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from tests.vae_pyro.data.sparse_data import assert_same, counts
from vae_pyro import load_data
from vae_pyro.data.dataset import DataConfig, load_all
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows
from vae_pyro.data.readers import open_source


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("compressed", [True, False])
def test_files_of_save_npz(kind: str, compressed: bool, tmp_path: Path) -> None:
    x = counts()
    path = tmp_path / "x.npz"
    sparse.save_npz(path, sparse.csr_array(x).asformat(kind), compressed=compressed)
    store = open_source(path)
    assert not store.labelled
    assert torch.equal(SparseRows.of(store.matrix)[:], torch.from_numpy(x))
    np.testing.assert_array_equal(store.read(3, 9), x[3:9])


def test_labels_in_the_file_and_files_that_hold_none(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    matrix = sparse.csr_matrix(counts())
    parts = {"format": "csr", "shape": matrix.shape, "data": matrix.data, "indices": matrix.indices}
    np.savez(path, **parts, indptr=matrix.indptr, y=np.array(["b", "a"] * 11 + ["b"]))
    assert open_source(path).about.classes == ("a", "b")
    data = load_all(DataConfig(source=str(path)))
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0] * 11 + [1]
    np.savez(path, **parts, indptr=matrix.indptr, y=np.arange(3))
    with pytest.raises(ValueError, match=r"y has shape \(3,\), x has 23 rows"):
        open_source(path)
    np.savez(path, **parts, indptr=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="cannot read the sparse matrix"):  # no pickle is opened
        open_source(path)
    np.savez(path, x=counts())
    assert open_source(path).matrix is None
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read .*x\.npz"):
        open_source(path)


def test_a_file_is_loaded_split_and_prepared_as_the_dense_file_is(tmp_path: Path) -> None:
    x = counts(60, 7).clip(0, 1)
    sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_array(x))
    np.save(tmp_path / "dense.npy", x)
    for options in ({}, {"binarize": "dynamic"}, {"binarize": "threshold"}, {"validation_fraction": 0.0}):
        found = [load_data(tmp_path / name, **options) for name in ("sparse.npz", "dense.npy")]
        assert found[0].facts.sparse
        assert found[0].facts.entries == np.count_nonzero(x)
        for name in ("train", "validation", "test"):
            ours, theirs = (getattr(data, name) for data in found)
            assert isinstance(ours, SparseSplit)
            assert_same((ours.values[:], ours.ids), (theirs.values, theirs.ids))
            assert (ours.top, ours.draw, ours.space) == (theirs.top, theirs.draw, theirs.space)
        for key in ("x_shape", "sizes", "range", "integral", "space", "kind"):
            assert getattr(found[0].facts, key) == getattr(found[1].facts, key)
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


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("place", [-1, 40])
def test_indices_outside_the_matrix_are_refused(kind: str, place: int, tmp_path: Path) -> None:
    matrix = sparse.csr_matrix(counts()).asformat(kind)
    path = tmp_path / "x.npz"
    sparse.save_npz(path, matrix)
    with np.load(path) as arrays:
        parts = dict(arrays)
    name = "col" if kind == "coo" else "indices"
    parts[name] = parts[name].copy()
    parts[name][3] = place
    np.savez(path, **parts)
    with pytest.raises(ValueError, match="cannot read the sparse matrix .*x.npz'"):
        open_source(path)
    (matrix.coords[1] if kind == "coo" else matrix.indices)[3] = place
    with pytest.raises(
        ValueError, match=f"sparse matrix is damaged: entry 3 has the (row|column) {place}, and there are"
    ):
        SparseRows.of(matrix)


def test_rows_that_do_not_begin_one_after_another_are_refused(tmp_path: Path) -> None:
    matrix = sparse.csr_matrix(counts())
    matrix.indptr[5] = matrix.indptr[-1] + 7
    path = tmp_path / "x.npz"
    parts = {"format": "csr", "shape": matrix.shape, "data": matrix.data, "indices": matrix.indices}
    np.savez(path, **parts, indptr=matrix.indptr)
    with pytest.raises(ValueError, match="cannot read the sparse matrix"):
        open_source(path)
    with pytest.raises(ValueError, match="where its rows begin .* does not rise"):
        SparseRows.of(matrix)
