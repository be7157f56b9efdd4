"""``vae-pyro reconstruct``: data beside their reconstructions."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.vae_pyro.cli.calls import done


def test_data_and_reconstructions_are_pairs(digits_run: Path, tmp_path: Path) -> None:
    done("reconstruct", digits_run, "--num", "5", "--out", tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz") as made:
        assert made["x"].shape == made["reconstruction"].shape == (5, 1, 8, 8)
        assert made["id"].shape == (5,)
        assert ((made["reconstruction"] > 0) & (made["reconstruction"] < 1)).all()
    done("reconstruct", digits_run, "--out", tmp_path / "r.png")
    assert np.asarray(Image.open(tmp_path / "r.png").convert("L")).std() > 5
