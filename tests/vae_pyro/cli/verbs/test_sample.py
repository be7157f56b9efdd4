"""``vae-pyro sample``: draws and their pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.vae_pyro.cli.calls import done, refused


def test_draws_are_those_of_the_likelihood(digits_run: Path, tmp_path: Path) -> None:
    done("sample", digits_run, "--num", "9", "--out", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as drawn:
        assert drawn["x"].shape == drawn["expectation"].shape == (9, 1, 8, 8)
        assert set(np.unique(drawn["x"])) <= {0, 1}
    done("sample", digits_run, "--out", tmp_path / "s.png")
    assert np.asarray(Image.open(tmp_path / "s.png").convert("L")).std() > 5  # something is drawn


def test_refusals(digits_run: Path, tmp_path: Path) -> None:
    assert "the ending chooses the format, .png or .npz" in refused("sample", digits_run, "--out", tmp_path / "s.jpg")
    assert "not a run folder" in refused("sample", tmp_path, "--out", tmp_path / "s.png")
    assert not list(tmp_path.iterdir())
