"""``vae-pyro report``: its files beside those of ``evaluate``."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analysis.report import report
from tests.vae_pyro.cli.calls import done, refused
from vae_pyro.evaluation import rows


def test_report_writes_its_files_beside_those_of_evaluate(digits_run: Path) -> None:
    done("evaluate", digits_run, "--draws", "20", "--limit", "30")
    asked = ("--only", "fit", "--only", "density", "--draws", "100", "--limit", "30")
    shown = done("report", digits_run, *asked)
    assert "report.html" in shown
    assert "of 4 checks passed" in shown
    for column in ("question", "estimate", "threshold"):
        assert column in shown
    stored = json.loads((digits_run / "metrics.json").read_text())
    assert stored["n"] == 30
    assert stored["report"]["facts"]["held-out data"] == "the test split, 30 data"
    assert (digits_run / "inference.nc").exists()
    assert "<title>" in (digits_run / "report.html").read_text()
    assert "everything" in refused("report", digits_run, "--only", "everything")


def test_a_report_of_many_data_takes_a_sample_and_keeps_draws_of_fewer(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_LEAST", 40)
    monkeypatch.setattr(rows, "_OPERATIONS", {"cpu": 1.0})
    monkeypatch.setattr(report, "_SAVED_DRAWS_BYTES", 100 * 60 * 20)  # of 2 latents and 5 densities: 48 bytes a draw
    shown = done("report", digits_run, "--only", "density", "--only", "leakage", "--draws", "100")
    assert "inference.nc: about" in shown
    assert "MiB (100 draws of" in shown
    assert "of 40 data)" in shown
    stored = json.loads((digits_run / "metrics.json").read_text())
    said = "the test split, 40 data, a random sample of 359 (beside all of them, it adds 0.94 of each sampling standard"
    assert stored["report"]["facts"]["held-out data"] == f"{said} error)"
    assert said in shown
    with warnings.catch_warnings():  # xarray adds a filter of its own at every opening
        tree = xr.open_datatree(digits_run / "inference.nc", engine="h5netcdf")
    kept = tree["log_likelihood"].sizes["datum"]
    assert 20 <= kept < 40
    groups = [tree[name] for name in ("posterior", "log_prior", "sample_stats", "observed_data")]
    assert {group.sizes["datum"] for group in groups} == {kept}
    np.testing.assert_array_equal(tree["observed_data"]["datum"], tree["posterior"]["datum"])
    assert sum(tree[name].nbytes for name in ("posterior", "log_likelihood", "log_prior", "sample_stats")) <= 120_000
    weight = tree["log_likelihood"]["x"] + tree["log_prior"]["z"] - tree["sample_stats"]["log_guide"]
    np.testing.assert_allclose(weight, tree["sample_stats"]["log_weight"])
    tree.close()
