"""``vae-pyro tune``: a search, and a fit of the settings that it found."""

import json
from pathlib import Path

import numpy as np

from tests.vae_pyro.cli.calls import done
from vae_pyro import RunFolder


def test_tune_searches_and_its_best_settings_fit(tmp_path: Path) -> None:
    shown = done(
        "tune", "digits", "--space", "latent_dim=1..3", "--space", "optimizer.lr=1e-3..1e-2:log", "--trials", "3",
        "--epochs", "2", "--no-compile", "--set", "encoder.hidden=[8]", "--out", tmp_path / "s",
    )  # fmt: skip
    assert "search.html" in shown
    assert (tmp_path / "s" / "search.html").exists()
    done("fit", "digits", "--config", tmp_path / "s" / "best.json", "--out", tmp_path / "best")
    best = json.loads((tmp_path / "s" / "best.json").read_text())
    assert RunFolder(tmp_path / "best").config()["model"]["latent_dim"] == best["model"]["latent_dim"]
    history = RunFolder(tmp_path / "best").read_history()
    assert np.isfinite(history[-1]["validation_elbo"])
