"""Sparse data: the bits of the dense split, in memory of the entries and of a batch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import sparse

from analysis.density.elpd import elpd_of
from analysis.samples.leakage.check import held_out_check
from tests.vae_pyro.data.sparse_data import INDEXES, KINDS, assert_same, counts
from vae_pyro import VAE, FitConfig, Split, VAEConfig, evaluate, fit
from vae_pyro.core.isolation import seeded
from vae_pyro.core.minibatches import BitStream, Part
from vae_pyro.data.dataset import as_split
from vae_pyro.data.memory.resident import ResidentSplit
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows
from vae_pyro.data.split import fingerprint
from vae_pyro.svi.compiled_svi import CompiledSVI


def both(x: np.ndarray[Any, Any], **options: Any) -> tuple[Split, SparseSplit]:
    dense = torch.as_tensor(x.astype(np.int64) if x.dtype.kind in "iu" and x.dtype != np.uint8 else x)
    dense = dense.to(torch.uint8) if dense.dtype == torch.bool else dense
    return Split(dense, **options), SparseSplit(sparse.csr_array(x), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_types_are_those_of_the_dense_split(kind: Any) -> None:
    dense, split = both(counts().astype(kind))
    assert split.values.dtype == dense.values.dtype
    assert torch.equal(split.head, dense.head)
    assert split.summary() == dense.summary()


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
        assert type(other) is ResidentSplit
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
    monkeypatch.setattr("vae_pyro.data.memory.sparse_rows._ENTRIES", 10)  # several blocks
    assert SparseSplit(matrix).summary() == Split(torch.from_numpy(matrix.toarray())).summary()


def test_values_that_are_not_finite_are_refused_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.data.memory.sparse_rows._ENTRIES", 10)
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


_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))  # what would take the whole machine ends before it has
import numpy as np
from pyro.infer import Trace_ELBO
from scipy import sparse
import torch
from benchmarks.memory import peak
from vae_pyro import VAE, VAEConfig, evaluate
from vae_pyro.data.split import fingerprint
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.readers import open_source
from vae_pyro.core.minibatches import BitStream
from vae_pyro.svi.compiled_svi import CompiledSVI
from vae_pyro.training.fitting import checked, initialize

size, columns, each = 200_000, 20_000, 20
random = np.random.default_rng(0)
rows, where = np.repeat(np.arange(size), each), random.integers(columns, size=size * each)
values = random.integers(1, 4, size=size * each).astype(np.float32)
sparse.save_npz(sys.argv[1], sparse.csr_array((values, (rows, where)), shape=(size, columns)), compressed=False)
del rows, where, values
split = SparseSplit(open_source(sys.argv[1]).matrix)
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


@pytest.mark.slow
def test_memory_is_that_of_the_entries(tmp_path: Path) -> None:
    """200,000 x 20,000 at 1e-3: 16 GB as dense float32, 32 GB as float64; here 3 GiB at most, libraries included."""
    child = [sys.executable, "-c", _CHILD, str(tmp_path / "x.npz")]
    ended = subprocess.run(child, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert float(ended.stdout) < 3.0
