"""Rate and distortion of the linear VAE are those of its closed form."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from analysis.experiments.rate_distortion.estimate import rate_distortion
from tests.analysis.experiments.rate_distortion.linear_vae import BETAS, DRAWS, exact, linear

type Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("q", [5, 2])
def test_estimates_are_the_closed_form_of_the_linear_vae(x: Tensor, spectrum: Array, q: int) -> None:
    found = rate_distortion([(beta, linear(x, q, beta)) for beta in BETAS], x, num_draws=DRAWS, seed=0)
    for point in found.points:
        assert point.beta is not None
        for name, wanted in zip(("rate", "distortion"), exact(spectrum, q, point.beta), strict=True):
            # The data are the population, so that only draws err: 16 figures at 4.4 errors fail once in 5,000 seeds.
            assert abs(getattr(point, name).mean() - wanted) < 4.4 * point.mcse(name) + 1e-9
        np.testing.assert_allclose(-point.mean(1, 1)[0], found.to_dataframe()["elbo"].iloc[found.points.index(point)])


def test_what_cannot_be_a_curve_is_refused(x: Tensor) -> None:
    pair = linear(x, 2, 1.0)
    for options, message in (
        ({"pairs": []}, "pairs is empty"),
        ({"num_draws": 1}, "num_draws must be at least 2"),
        ({"scale": 1.0}, "pass both or neither"),
        ({"x": x[:1]}, "at least 2 data"),
        ({"spectrum": np.array([1.0, -1.0]), "scale": 1.0}, "positive eigenvalues"),
    ):
        with pytest.raises(ValueError, match=message):
            rate_distortion(**{"pairs": [(1.0, pair)], "x": x[:5], **options})  # type: ignore[arg-type]
