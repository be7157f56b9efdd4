"""``vae-pyro compress`` and ``vae-pyro decompress``: there and back, bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.vae_pyro.cli.calls import FAST, call, done, refused
from vae_pyro import load_data

pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the 17 levels of digits."""
    out = tmp_path_factory.mktemp("compress") / "run"
    done("fit", "digits", "--likelihood", "discretized_logistic:levels=17", "--latent-dim", "4", *FAST, "--out", out)
    return out


def test_data_go_there_and_come_back(run: Path, tmp_path: Path) -> None:
    to, back = tmp_path / "new" / "d.vpz", tmp_path / "x.npz"
    shown = done("compress", run, "--out", to, "--limit", "50", "--draws", "20")
    for word in ("minus ELBO", "bits-back, net", "gzip", "PNG", "wrote"):
        assert word in shown
    assert "50 data of shape (1, 8, 8)" in done("decompress", run, to, "--out", back)
    test = load_data("digits", scale="none").test
    with np.load(back, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["x"], test.values[:50].numpy())
        np.testing.assert_array_equal(arrays["id"], test.ids[:50].numpy())


def test_other_data_are_taken_and_rates_are_json(run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 17, (9, 1, 8, 8)).astype(np.uint8)
    source, to, back = tmp_path / "x.npy", tmp_path / "x.vpz", tmp_path / "again.npy"
    np.save(source, x)
    shown = call("compress", run, source, "--out", to, "--json", "--draws", "5")
    assert json.loads(shown.output)["n"] == 9
    done("decompress", run, to, "--out", back)
    np.testing.assert_array_equal(np.load(back), x)


def test_a_directory_is_refused_before_anything_is_coded(tmp_path: Path) -> None:
    assert "is a directory; name the archive" in refused("compress", tmp_path / "no-run", "--out", tmp_path)


def test_decompress_refuses_a_cut_archive_and_another_format(run: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "x.vpz", tmp_path / "cut.vpz"
    done("compress", run, "--out", whole, "--limit", "5", "--draws", "5")
    cut.write_bytes(whole.read_bytes()[:-40])
    for source, out in ((cut, tmp_path / "x.npy"), (whole, tmp_path / "x.csv")):
        refused("decompress", run, source, "--out", out)
        assert not out.exists()
