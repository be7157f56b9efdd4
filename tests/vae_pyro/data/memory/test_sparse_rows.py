"""Sparse rows are those of the dense matrix, whatever format they come from."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from tests.vae_pyro.data.sparse_data import INDEXES, assert_same, counts
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows, is_sparse
from vae_pyro.data.split import fingerprint


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
    with pytest.raises(ValueError, match=r"shape \(datum, column\) and of numbers expected"):
        SparseRows.of(bad)
