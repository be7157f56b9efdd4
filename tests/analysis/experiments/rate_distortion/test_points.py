"""The hull, slopes and secants of a few points."""

import numpy as np
import pytest

from analysis.experiments.rate_distortion.points import RatePoint
from analysis.experiments.rate_distortion.result import RateDistortion


def _point(label: str, rate: float, distortion: float, beta: float | None = None) -> RatePoint:
    noise = np.array([-1e-3, 1e-3, 0.0])
    none = np.zeros(3)
    return RatePoint(label, beta, rate + noise, none, distortion + noise, none)


def test_the_hull_leaves_out_what_a_mixture_beats() -> None:
    points = [("a", 10.0, 0.0), ("b", 7.0, 2.0), ("c", 4.0, 3.0), ("d", 4.5, 5.0), ("e", 1.0, 6.0), ("f", 1.0, 9.0)]
    found = RateDistortion(tuple(_point(*one) for one in points), 10)
    assert [found.points[i].label for i in found.hull] == ["a", "c", "e"]
    assert "above the hull" in str(found)
    assert found.verdicts == ()
    assert RateDistortion((_point("only", 1, 1),), 10).hull == (0,)


def test_a_collapsed_pair_has_no_slope() -> None:
    found = RateDistortion((_point("a", 0.0, 5.0, 1.0), _point("b", 0.0, 5.0, 2.0)), 10)
    (secant,) = found.secants
    assert np.isnan(secant.beta)


def test_secants_join_the_best_fit_of_each_beta() -> None:
    """D + beta R: 13.0 against 13.1 at beta 1, and 15.6 against 15.9 at beta 2; the slope is that of the best two."""
    fits = [("a", 3.0, 10.0, 1.0), ("b", 2.9, 10.2, 1.0), ("c", 2.8, 10.3, 2.0), ("d", 2.3, 11.0, 2.0)]
    found = RateDistortion(tuple(_point(*one) for one in fits), 10)
    (secant,) = found.secants
    assert (secant.first, secant.second, secant.low, secant.high) == ("a", "d", 1.0, 2.0)
    assert secant.beta == pytest.approx(1.0 / 0.7)
    assert len(found.points) == 4
