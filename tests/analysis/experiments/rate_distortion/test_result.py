"""The curve, its bounds and its verdicts, where both are known."""

import json
from dataclasses import replace
from math import log, pi
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from analysis.experiments.rate_distortion.estimate import rate_distortion
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.stats.rate_distortion import gaussian_entropy, gaussian_rate
from tests.analysis.experiments.rate_distortion.linear_vae import BETAS, DRAWS, VARIANCE, exact, linear

type Array = np.ndarray[Any, Any]


def test_the_linear_vae_is_the_best_code_of_gaussian_data(spectrum: Array) -> None:
    for beta in (0.1, *BETAS, 10.0):
        rate, distortion = exact(spectrum, 5, beta)
        bound, slope = gaussian_rate(spectrum, VARIANCE**0.5, distortion)
        assert bound == pytest.approx(rate, abs=1e-9)
        if rate > 0:
            assert slope == pytest.approx(-1 / beta)
        short, more = exact(spectrum, 1, beta)
        assert short >= gaussian_rate(spectrum, VARIANCE**0.5, more)[0] - 1e-9
        assert rate + distortion >= gaussian_entropy(spectrum) - 1e-9
    above = spectrum + VARIANCE  # where no latent is under water, the model holds the data exactly
    assert sum(exact(above, 5, 1.0)) == pytest.approx(gaussian_entropy(above))


def test_the_bound_falls_and_is_convex_and_has_its_ends(spectrum: Array) -> None:
    constant = 5 / 2 * log(2 * pi * VARIANCE)
    end = constant + spectrum.sum() / (2 * VARIANCE)
    assert gaussian_rate(spectrum, VARIANCE**0.5, constant - 1) == (np.inf, pytest.approx(np.nan, nan_ok=True))
    assert gaussian_rate(spectrum, VARIANCE**0.5, end + 1) == (0.0, 0.0)
    where = np.linspace(constant + 0.1, end + 1, 400)
    rates, slopes = np.array([gaussian_rate(spectrum, VARIANCE**0.5, d) for d in where]).T
    assert (np.diff(rates) <= 0).all()
    assert (np.diff(slopes) >= -1e-9).all()
    middle = (slopes[1:] + slopes[:-1]) / 2
    np.testing.assert_allclose(np.diff(rates) / np.diff(where), middle, rtol=0.2, atol=0.06)


def test_a_right_curve_keeps_to_every_bound(curve: RateDistortion) -> None:
    assert [point.beta for point in curve.points] == list(BETAS)
    assert {verdict.name: verdict.outcome for verdict in curve.verdicts} == {
        "entropy_bound": "pass",
        "gaussian_bound": "pass",
        "best_of_beta": "pass",
    }
    assert curve.hull == (0, 1, 2, 3)
    for secant in curve.secants:
        # The slope of a chord lies between those at its ends; three chords at 4 errors fail once in 5,000 seeds.
        assert secant.low - 4 * secant.beta_se <= secant.beta <= secant.high + 4 * secant.beta_se
        assert secant.beta_se < 0.2 * secant.beta
    assert curve.above_bound is not None
    for excess, se in curve.above_bound:  # the optimum lies on the bound
        assert abs(excess) < 4 * se


def test_errors_of_bounds_are_those_of_other_data(curve: RateDistortion) -> None:
    random = np.random.default_rng(0)
    drawn: list[list[float]] = []
    for _ in range(400):
        rows = random.integers(0, 1500, 1500)
        again = _with(curve, rate=lambda p, rows=rows: p.rate[rows], distortion=lambda p, rows=rows: p.distortion[rows])
        assert again.above_bound is not None
        assert again.above_entropy is not None
        betas = [secant.beta for secant in again.secants]
        drawn.append([*(one[0] for one in (*again.above_bound, *again.above_entropy)), *betas])
    assert curve.above_bound is not None
    assert curve.above_entropy is not None
    errors = [one[1] for one in (*curve.above_bound, *curve.above_entropy)] + [one.beta_se for one in curve.secants]
    # 400 bootstrap samples know a standard deviation to 3.5 %: 11 ratios within 4 of these fail once in 1,400 seeds.
    np.testing.assert_allclose(np.std(drawn, axis=0) / errors, 1, atol=0.14)


def _with(curve: RateDistortion, **change: Any) -> RateDistortion:
    points = tuple(replace(point, **{key: act(point) for key, act in change.items()}) for point in curve.points)
    return replace(curve, points=points)


def _outcomes(curve: RateDistortion) -> dict[str, str]:
    return {verdict.name: verdict.outcome for verdict in curve.verdicts}


def test_wrong_estimates_fall_below_the_bounds(curve: RateDistortion) -> None:
    # A KL averaged over latents in place of their sum, and a squared error in place of a density.
    averaged = _outcomes(_with(curve, rate=lambda point: point.rate / 5))
    assert averaged["entropy_bound"] == averaged["gaussian_bound"] == "fail"
    # The power: one of the four rates a tenth too small is seen, at a mean of about 2.4 nats and 1500 data.
    small = _outcomes(_with(curve, rate=lambda point: point.rate * (0.9 if point.beta == 1 else 1)))
    assert small["gaussian_bound"] == "fail"
    constant = 5 / 2 * log(2 * pi * VARIANCE)
    dropped = _outcomes(_with(curve, distortion=lambda point: point.distortion - constant - 1))
    assert dropped["entropy_bound"] == "fail"


def test_a_fit_that_is_not_the_best_of_its_beta_is_named(curve: RateDistortion) -> None:
    swapped = _with(curve, beta=lambda point: {0.5: 4.0, 4.0: 0.5}.get(point.beta, point.beta))
    assert _outcomes(swapped)["best_of_beta"] == "warn"
    assert any(one.significant and one.nats > 3 * one.se for one in swapped.dominated)
    assert not any(one.significant for one in curve.dominated)


def test_information_lies_below_the_rate_of_an_honest_guide(x: Tensor) -> None:
    found = rate_distortion({"linear": (1.0, linear(x, 2, 1.0))}, x[:400], num_draws=20, seed=0, information=True)
    assert _outcomes(found) == {"information_bound": "pass"}
    (excess,) = found.above_information
    assert excess is not None
    assert abs(excess[0]) < 1.0  # the aggregate posterior is the prior, so that R is I and more than its lower bound
    assert _outcomes(_with(found, rate=lambda point: point.rate / 2)) == {"information_bound": "fail"}


def test_results_are_printed_and_json(curve: RateDistortion) -> None:
    stored = json.loads(json.dumps(curve.summary()))
    assert [point["beta"] for point in stored["points"]] == list(BETAS)
    assert stored["points"][1]["elbo"] == pytest.approx(curve.to_dataframe()["elbo"].iloc[1])
    text = str(curve)
    assert "beta=0.5" in text
    assert f"{DRAWS} draws" in text
