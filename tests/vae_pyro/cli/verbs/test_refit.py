"""``vae-pyro refit``: a run with the model of its parent and another guide."""

import json
from pathlib import Path

import torch

from tests.vae_pyro.cli.calls import done, refused
from vae_pyro import RunFolder

QUICK = ["--steps", "40", "--batch-size", "64"]


def test_refit_writes_a_run_with_the_same_model(digits_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "refitted"
    shown = done("refit", digits_run, "--out", out, "--method", "half_asleep=0.5,wake=0.5", *QUICK)
    for words in ("validation ELBO", "symmetric KL", "k-hat is too large", "coverage of 90% regions", "guide is kept"):
        assert words in shown
    assert f"vae-pyro report {out}" in shown
    parent, child = RunFolder(digits_run), RunFolder(out)
    config = child.config()
    assert config["parent"] == {"run": digits_run.name, "weights": parent.weights_digest()}
    assert config["refit"]["method"] == "half_asleep=0.5,wake=0.5"
    assert config["refit"]["num_steps"] == 40
    was, now = parent.load_model(), child.load_model()
    assert all(torch.equal(value, now.model.state_dict()[name]) for name, value in was.model.state_dict().items())
    summary = json.loads(child.metrics_file.read_text())["refit"]
    changed = any(
        not torch.equal(value, now.guide.state_dict()[name]) for name, value in was.guide.state_dict().items()
    )
    assert changed == summary["replaced"]
    assert summary["after"]["symmetric_kl_se"] > 0
    assert child.read_history() == parent.read_history()
    assert "ELBO" in done("evaluate", out, "--draws", "20", "--limit", "50")
    assert "holds a run" in refused("refit", digits_run, "--out", out, *QUICK)
    assert "which a refit leaves as it is" in refused("refit", digits_run, "--out", digits_run, *QUICK)
    assert "unknown method 'dream'" in refused("refit", digits_run, "--out", tmp_path / "b", "--method", "dream")
