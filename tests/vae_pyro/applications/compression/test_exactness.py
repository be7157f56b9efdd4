"""Probabilities are the same bits everywhere; an archive that cannot be decoded is refused, not decoded wrongly."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tests.vae_pyro.applications.compression.models import tiny
from vae_pyro import VAE, Dataset
from vae_pyro.applications.compression import grid as grid_module
from vae_pyro.applications.compression.archive import Archive, ArchiveError
from vae_pyro.applications.compression.codec import compress, decompress
from vae_pyro.applications.compression.networks import Networks, exact

type Array = np.ndarray[Any, Any]


def test_threads_type_and_neighbours_do_not_change_a_bit(fitted: VAE, digits: Dataset) -> None:
    x = digits.test.values[:70]
    before = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(compress(fitted, x).to_bytes())
            assert torch.get_num_threads() == threads
            with exact():
                assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]
    with exact():
        networks = Networks(fitted, 16)
        rows = x[:5].numpy()
        alone, among = networks.posterior(rows), networks.posterior(np.concatenate([rows, x[20:31].numpy()]))
        for one, other in zip(alone, among, strict=True):
            np.testing.assert_array_equal(one, other[: len(one)])


@pytest.mark.slow
def test_another_process_with_other_threads_reads_it(run: Path, file: Path, digits: Dataset, tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from vae_pyro.runs.folder import RunFolder; "
        "from vae_pyro.applications.compression.archive import read_archive; "
        "from vae_pyro.applications.compression.codec import decompress; "
        "np.save(sys.argv[3], decompress(RunFolder(sys.argv[1]).load_model(), read_archive(sys.argv[2])))"
    )
    out = tmp_path / "x.npy"
    subprocess.run(
        [sys.executable, "-c", program, str(run), str(file), str(out)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    np.testing.assert_array_equal(np.load(out), digits.test.values.numpy())


def test_other_weights_are_refused(fitted: VAE, archive: Archive) -> None:
    other = VAE(fitted.config)
    with pytest.raises(ArchiveError, match=r"written with other weights .* name the run that wrote it"):
        decompress(other, archive)
    other.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        next(other.model.decoder.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(ArchiveError, match="written with other weights"):
        decompress(other, archive)


def _less_exact(values: Array) -> Array:
    """A distribution function as another library might compute it."""
    return np.asarray(norm.cdf(values.astype(np.float32)), dtype=np.float64)


def test_a_machine_that_computes_other_probabilities_is_refused_before_it_decodes(
    fitted: VAE, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    with pytest.raises(ArchiveError, match=r"other probabilities .* at fixed points.*versions are the same"):
        decompress(fitted, archive)


def test_a_difference_that_fixed_places_do_not_show_is_refused_by_the_data(
    fitted: VAE, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    monkeypatch.setattr(Networks, "digest", lambda self, grid, alphabet: archive.header.probabilities)
    with pytest.raises(ArchiveError, match=r"other probabilities .* somewhere in the data"):
        decompress(fitted, archive)


@pytest.mark.parametrize(
    ("likelihood", "high"), [("poisson", 6000), ("negative_binomial:dispersion=predicted", 20_000), ("bernoulli", 1)]
)
@pytest.mark.parametrize("seed", range(3))
def test_data_that_other_probabilities_cannot_decode_are_refused_alike(
    likelihood: str, high: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind an escape stands an integer of any size, which may be too large for 64 bits."""
    vae = tiny(likelihood, (6,), 2, seed)
    made = compress(vae, np.random.default_rng(seed).integers(0, high + 1, (60, 6)), seed=seed)
    assert made.header.escape == (high > 4096)
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    monkeypatch.setattr(Networks, "digest", lambda self, grid, alphabet: made.header.probabilities)
    with pytest.raises(ArchiveError, match=r"other probabilities .* somewhere in the data"):
        decompress(vae, made)


def test_versions_that_differ_are_named(fitted: VAE, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    versions = {**archive.header.versions, "torch": "1.0"}
    old = Archive(archive.header.replace(versions=versions), archive.words, archive.ids)
    with pytest.raises(ArchiveError, match=f"torch 1.0 there, {torch.__version__.split('+')[0]}"):
        decompress(fitted, old)
