"""``vae-pyro report``: its files beside those of ``evaluate``."""

import json
from pathlib import Path

from tests.vae_pyro.cli.calls import done, refused


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
