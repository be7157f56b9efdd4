"""``vae-pyro plot``: the pictures of a run."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.vae_pyro.cli.calls import done


def test_four_pictures_are_written(digits_run: Path, tmp_path: Path) -> None:
    shown = done("plot", digits_run, "--out", tmp_path / "pictures")
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == ["curves.png", "latent.png", "reconstructions.png", "samples.png"]
    for file in files:
        assert np.asarray(Image.open(file).convert("L")).std() > 5
        assert file.name in shown
