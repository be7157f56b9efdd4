"""A comparison as printed table, CSV, DataTree and summary."""

import csv
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.page import write_comparison
from analysis.experiments.comparison.tables import csv_text, variant_rows
from tests.analysis.experiments.examples import odd, three, variant


def test_the_table_of_any_names_fits_and_is_the_same_again() -> None:
    for make in (three, odd):
        text = str(make())
        assert max(map(len, text.splitlines())) <= 120
        assert text == str(make())
        assert csv_text(make()) == csv_text(make())
    assert "seconds" not in str(three())
    assert "12.5" not in str(three())  # a resumed fit took another time, and prints the same table


def test_the_csv_has_a_row_for_each_run_and_each_variant_with_all_digits() -> None:
    comparison = odd()
    rows = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    assert [row["level"] for row in rows] == ["run"] * 9 + ["mean"] * 3
    assert {row["variant"] for row in rows} == set(comparison.labels)
    for row in rows[:9]:
        i = comparison.labels.index(row["variant"])
        j = comparison.estimates.seeds[i].tolist().index(int(row["seed"]))
        assert float(row["log_px"]) == comparison.estimates.runs["log_px"][i, j]
        assert row["log_px_se"] == row["reference"] == ""
    for row, mean in zip(rows[9:], variant_rows(comparison), strict=True):
        assert (float(row["log_px"]), float(row["log_px_se"])) == (mean["log_px"], mean["log_px_se"])
        assert (float(row["approximation"]), float(row["amortization"])) == (pytest.approx(1.2), pytest.approx(3.4))
        assert json.loads(row["grid"]) == {"hidden": [8, "ü"]}
        if row["reference"]:
            pair = next(pair for pair in comparison.differences if pair.first == row["variant"])
            assert (float(row["difference"]), float(row["p_adjusted"])) == (pair.mean.estimate, pair.p_adjusted)
    assert sum(bool(row["reference"]) for row in rows) == 2


def test_the_tree_contains_every_estimate_and_survives_the_disk(tmp_path: Path) -> None:
    comparison = odd()
    write_comparison(comparison, tmp_path)
    with warnings.catch_warnings(), xr.open_datatree(tmp_path / "comparison.nc", engine="h5netcdf") as opened:
        tree = opened.load()
    assert set(tree.children) == {"pointwise", "runs", "latent", "summary", "differences", "agreement"}
    assert dict(tree["pointwise"].sizes) == {"variant": 3, "seed": 3, "datum": 200}
    assert tree["runs"]["variant"].values.tolist() == list(comparison.labels)
    np.testing.assert_array_equal(tree["pointwise"]["log_px"], comparison.estimates.pointwise("log_px"))
    np.testing.assert_array_equal(tree["runs"]["seed_number"], comparison.estimates.seeds)
    assert tree["latent"].sizes["latent"] == 4
    assert np.isnan(tree["latent"]["activity"].values).sum() == 3 * (1 + 2)
    np.testing.assert_array_equal(tree["summary"]["log_px"], comparison.estimates.mean("log_px")[0])
    pairs = tree["differences"]
    assert pairs["first"].values.tolist() == [pair.first for pair in comparison.pairs]
    np.testing.assert_array_equal(pairs["p_adjusted"], [pair.p_adjusted for pair in comparison.pairs])
    assert int(pairs["against_baseline"].sum()) == 2
    assert tree.attrs["winner"] == comparison.winner
    assert np.isfinite(tree["agreement"]["cka"]).all()


def test_the_summary_is_json() -> None:
    for comparison in (three(), odd(), compare_variants(variant("a", -90, [0]))):
        text = json.dumps(comparison.summary(), allow_nan=False)
        assert json.loads(text)["winner"] == comparison.winner
