"""Models of known log p(x): exact guides have constant weights, near ones meet it, and wrong ones are seen."""

from argparse import Namespace
from collections.abc import Callable

import numpy as np
import pytest

from analysis import elpd_of
from analysis.posterior.calibration.sbc import calibrate
from benchmarks import evidence, power
from benchmarks.exact import near, pairs
from benchmarks.exact.pairs import ExactPair
from benchmarks.exact.wrong_guides import guides


def named(make: Callable[[], ExactPair]) -> str:
    return make.__name__


@pytest.mark.parametrize("make", pairs.PAIRS, ids=named)
def test_every_weight_of_an_exact_guide_is_the_evidence(make: Callable[[], ExactPair]) -> None:
    """log p(x, z) - log q(z | x) is log p(x) at every z, to rounding, and no simulation shows a divergence."""
    exact = make()
    x = exact.data(50, 1)
    found = elpd_of(exact.pair, x, num_draws=25)
    np.testing.assert_allclose(found.elbo, exact.log_evidence(x), atol=1e-10)
    np.testing.assert_allclose(found.upper, exact.log_evidence(x), atol=1e-10)
    bounds = calibrate(exact.pair, num_simulations=50, num_draws=19, seed=1).evidence
    assert bounds is not None
    assert bounds.symmetric_kl == 0


@pytest.mark.parametrize("make", near.PAIRS, ids=named)
def test_importance_sampling_meets_closed_forms_and_quadrature(make: Callable[[], ExactPair]) -> None:
    """The average over 40 data within 4.5 of its standard errors (7e-6 for each of ten), which are below 0.02."""
    exact = make()
    x = exact.data(40, 2)
    found = elpd_of(exact.pair, x, num_draws=2000, seed=3)
    error = found.mcse / len(x)
    assert error < 0.02
    assert abs(found.elpd / len(x) - float(exact.log_evidence(x).mean())) < 4.5 * error


def test_the_loss_of_a_cut_guide_is_the_closed_form() -> None:
    """A posterior cut to 95 % loses minus the logarithm of 0.95, at every datum."""
    (cut,) = [guide for guide in guides() if guide.name == "cut to the central 95 %"]
    assert power.loss(cut, 0)["mean"] == pytest.approx(-np.log(0.95), abs=1e-9)


@pytest.mark.slow
def test_every_guide_that_loses_much_is_seen_and_exact_ones_are_not() -> None:
    """15 repetitions: were the best power 0.99, 14 would see it in all but 1 of 100 runs. Of the exact guides' tests,
    at one level of 0.05, at most 12 of 60 reject (1 in 20,000)."""
    given = Namespace(repetitions=15, gap_repetitions=0, gap_data=0, simulations=500, data=100, seed=1)
    result = power.measure(given)
    assert power.unseen(result["rows"]) == []
    exact = [row["any but gaps"]["rate"] for row in result["rows"] if row["guide"] == "exact"]
    assert np.mean(exact) * 60 <= 12
    assert "is seen by a diagnostic" in power.report(result)


@pytest.mark.slow
def test_errors_of_log_px_are_as_stated() -> None:
    """20 repetitions of two models: z of a right error has the sd 1, whose own error is 0.16, and the mean 0, of 0.22;
    within 4 of these, and 0.15 for skewness and bias."""
    given = Namespace(repetitions=20, data=5, draws=1000, temperatures=100, seed=1)
    for make in (near.gaussian_off, near.logistic):
        row = evidence.estimates_of(make(), given)
        for name in ("importance", "annealed"):
            assert abs(row[name]["mean_z"]) < 4 * 0.22 + 0.15
            assert abs(row[name]["sd_z"] - 1) < 4 * 0.16 + 0.15


def test_false_alarms_are_counted_by_family() -> None:
    rows = [{"model": "m", "outcomes": [{"sbc": "warn", "tarp": "fail", "bdmc_gap": "pass"}, {"sbc": "inconclusive"}]}]
    table = evidence.alarms_table({"rows": rows})
    last = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
    assert last[0] == "all"
    assert [cell for cell in last[1:] if cell] == ["50.0% ± 35.4%", "0.0% ± 50.0%", *["50.0% ± 35.4%"] * 3]
