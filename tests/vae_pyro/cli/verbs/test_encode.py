"""``vae-pyro encode``: moments of q(z | x) of a run's data and of others."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.vae_pyro.cli.calls import done, refused
from vae_pyro import RunFolder, load_data


def test_codes_have_a_row_for_each_datum(digits_run: Path, tmp_path: Path) -> None:
    done("encode", digits_run, "--out", tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as codes:
        assert codes["loc"].shape == codes["scale"].shape == (359, 2)
        assert codes["label"].shape == codes["id"].shape == (359,)
        assert (codes["scale"] > 0).all()
        test = load_data("digits", binarize="dynamic").test
        loc, scale = RunFolder(digits_run).load_model().posterior_moments(test.batch(slice(None))[0])
        np.testing.assert_allclose(codes["loc"], loc, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(codes["scale"], scale, rtol=1e-5)
    done("encode", digits_run, "digits", "--out", tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as codes:
        assert len(codes["loc"]) == 1797
    done("encode", digits_run, "digits", "--limit", "7", "--out", tmp_path / "few.npz")
    with np.load(tmp_path / "few.npz") as codes:
        assert codes["id"].tolist() == [*range(7)]
    done("encode", digits_run, "--out", tmp_path / "e.png")
    assert np.asarray(Image.open(tmp_path / "e.png").convert("L")).std() > 5


def test_data_of_another_shape_are_refused(digits_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((4, 9), np.float32))
    assert "(datum, 1, 8, 8)" in refused("encode", digits_run, tmp_path / "wide.npy", "--out", tmp_path / "e.npz")
    assert not (tmp_path / "e.npz").exists()


def test_data_far_outside_the_range_of_the_fit_are_refused_by_their_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((60, 4))
    np.save(tmp_path / "x.npy", x)
    fast = ("--epochs", "2", "--no-compile", "--latent-dim", "2", "--likelihood", "gaussian")
    done("fit", tmp_path / "x.npy", *fast, "--out", tmp_path / "run")
    x[[3, 11]] = 1e30 * x[3]
    np.save(tmp_path / "far.npy", x)
    message = refused("encode", tmp_path / "run", tmp_path / "far.npy", "--out", tmp_path / "e.npz")
    assert "rows 3, 11: they lie far outside the training data" in message
    assert not (tmp_path / "e.npz").exists()
