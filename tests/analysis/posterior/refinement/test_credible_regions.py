"""Conformal regions cover at their level, however wrong the guide."""

import numpy as np
import pytest
import torch

from analysis import credible_regions
from analysis.stats.conformal import conformal_threshold
from tests.truths import example
from vae_pyro.core.isolation import seeded


@pytest.mark.parametrize("stretch", [0.5, 1.0, 2.0])
def test_regions_cover_at_their_level_whatever_the_scale_of_the_guide(stretch: float) -> None:
    truth = example()
    with seeded(7):
        z = torch.randn(2000, 2, dtype=torch.float64)
        x = z @ truth.weight.T + truth.mean + truth.variance**0.5 * torch.randn(2000, 5, dtype=torch.float64)
    found = credible_regions(truth.programs(stretch=stretch), x, level=0.9, num_calibration=2000, seed=1)
    # The coverage of one calibration set is Beta(1801, 200): sd 0.0067, as is the error of 2,000 new data. Three
    # coverages of each guide, at 4 standard errors: a false alarm in 1 of 1,700 runs.
    allowed = 4 * np.hypot(0.0067, 0.0067)
    assert abs(found.contains({"z": z[None]}).mean() - 0.9) < allowed
    inside = (found.lower <= z.numpy()) & (z.numpy() <= found.upper)
    assert np.abs(inside.mean(0) - 0.9).max() < allowed
    # The posterior is Gaussian: a guide scaled by s requires 1 / s of its widths.
    assert found.factor == pytest.approx(found.nominal / stretch, rel=0.1)
    assert found.summary()["mean_width"] == pytest.approx(float((found.upper - found.lower).mean()))
    assert list(found.to_dataframe().columns) == ["lower", "upper"]
    assert "conformal 90% regions of 2,000 data" in str(found)


def test_thresholds_and_refusals() -> None:
    scores = np.arange(1.0, 20.0)  # 19 of them: the 18th has at most 0.9 below it
    assert conformal_threshold(scores, 0.9) == 18
    assert conformal_threshold(np.stack([scores, -scores], 1), 0.5).tolist() == [10, -10]
    with pytest.raises(ValueError, match="takes at least 99 calibration data, got 19"):
        conformal_threshold(scores, 0.99)
    truth = example()
    with pytest.raises(ValueError, match="level lies between 0 and 1, got 1.5"):
        credible_regions(truth.programs(), truth.sample(3, seed=0), level=1.5)
