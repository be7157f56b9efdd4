"""``vae-pyro posterior``: draws of single posteriors as netCDF."""

import warnings
from pathlib import Path

import xarray as xr

from tests.vae_pyro.cli.calls import done, refused


def test_posterior_writes_draws_with_diagnostics(digits_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "draws.nc"
    shown = done("posterior", digits_run, "--limit", "5", "--draws", "40", "--out", out)
    assert "40 draws by importance for each of the first 5 of the test data" in shown
    assert "median effective sample size" in shown
    with warnings.catch_warnings(), xr.open_datatree(out, engine="h5netcdf") as tree:  # xarray adds a filter
        assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 40, "datum": 5, "latent": 2}
        assert set(tree["posterior_diagnostics"].data_vars) >= {"pareto_k", "effective_sample_size", "reliable"}
        assert tree.attrs["method"] == "importance"
    assert "unknown method 'exact'" in refused("posterior", digits_run, "--method", "exact", "--out", out)
    assert "the ending chooses the format" in refused("posterior", digits_run, "--out", tmp_path / "draws.npz")
