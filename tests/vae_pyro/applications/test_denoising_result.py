"""Labelled arrays and summaries of denoised data."""

from dataclasses import replace

import numpy as np
import pytest

from vae_pyro.applications.denoising_result import Denoised

MEAN = np.arange(12.0).reshape(2, 2, 3)
RESULT = Denoised(
    mean=MEAN,
    sd=np.full_like(MEAN, 0.5),
    lower=MEAN - 1,
    upper=MEAN + 1,
    mean_se=np.full_like(MEAN, 0.02),
    effective_sample_size=np.array([30.0, 90.0]),
    draws=np.stack([MEAN - 0.1, MEAN + 0.1, MEAN]),
    level=0.9,
    num_draws=100,
    ids=np.array([7, 9]),
)


def test_labelled_arrays() -> None:
    data = RESULT.to_xarray()
    assert data.sizes == {"datum": 2, "x_dim_0": 2, "x_dim_1": 3, "draw": 3}
    np.testing.assert_array_equal(data["mean"].sel(datum=9), MEAN[1])
    assert data["upper"].sel(datum=7, x_dim_0=1, x_dim_1=2) == 6.0
    assert data["effective_sample_size"].sel(datum=9) == 90.0
    np.testing.assert_array_equal(data["draws"].isel(draw=1), MEAN + 0.1)
    assert data.attrs == {"level": 0.9, "num_draws": 100}
    assert "draws" not in replace(RESULT, draws=None).to_xarray()


def test_summary_and_its_forms() -> None:
    summary = RESULT.summary()
    assert summary["posterior_sd"] == pytest.approx(0.5)
    assert summary["least_effective_sample_size"] == 30
    assert "effective sample size 60 in the median, at least 30" in str(RESULT)
    assert "<th>posterior_sd</th>" in RESULT._repr_html_()
    assert "<td>0.02</td>" in RESULT._repr_html_()
