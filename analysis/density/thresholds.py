"""When an estimate of log p(x) warns or fails: the guide as a proposal, and the number of draws."""

from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.remedies import REFIT
from analysis.results.verdict import Outcome, Verdict, graded, worst

if TYPE_CHECKING:
    from analysis.density.result import ELPD

# Shares of data with k-hat too large, and effective draws, at which a verdict turns.
FEW_BAD, _MOST_BAD = 0.1, 0.5
_FEW_DRAWS = 10


def verdicts_of(result: "ELPD") -> tuple[Verdict, ...]:
    """Of the proposal, of both errors from the number of draws, and of the upper bound."""
    return _proposal(result), _monte_carlo_error(result), _finite_draws_bias(result), _upper_bound(result)


def widest(result: "ELPD") -> float:
    """Largest distance of CUBO from the estimate, nats, with enough effective draws behind it."""
    return 0.5 * log(result.num_draws / _FEW_DRAWS)


def more_draws(result: "ELPD") -> str:
    """What to do against too few draws."""
    return f"raise num_draws (now {result.num_draws:,}) or bring the guide closer to the posterior"


def spread(values: np.ndarray[Any, Any]) -> float:
    """Standard error of a sum over data; NaN for one datum."""
    return float(sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else float("nan")


def _proposal(result: "ELPD") -> Verdict:
    n = len(result)
    share, hopeless = result.num_bad / n, float(result.hopeless.mean())
    outcome: Outcome = "pass" if result.trusted else "warn" if hopeless <= _MOST_BAD else "fail"
    return Verdict(
        "For what share of the data is the guide too far from the posterior to estimate log p(x)?",
        share,
        sqrt(share * (1 - share) / n),
        "of the data",
        f"at most {FEW_BAD:g} with k-hat above {result.good_k:.2f} (tied or nearly equal weights: fewer than 100 "
        f"effective draws); fail if more than {_MOST_BAD:g} are above 1",
        "k-hat: Vehtari et al. 2024, arXiv:1507.02646, sec. 3.2; shares: convention, all but a few and most",
        outcome,
        remedy=f"k-hat exceeds 1 for {hopeless:.0%} of the data; their log p(x) is a lower bound, too low by an "
        f"unknown amount; {REFIT}, or raise num_draws (now {result.num_draws:,})",
        name="pareto_k",
    )


def _monte_carlo_error(result: "ELPD") -> Verdict:
    test, error = result.se_test / len(result), result.mcse / len(result)
    return Verdict(
        "Is the Monte Carlo error of log p(x) small enough?",
        error,
        None,
        "nats per datum, Monte Carlo standard error",
        f"at most a third of the sampling standard error of the test set, {test:.3g}",
        "convention: a third adds 5 % to the total error",
        graded(error, test / 3, test),
        "" if error <= test / 3 else f"raise num_draws (now {result.num_draws:,})",
        "log_px_mcse",
    )


def _finite_draws_bias(result: "ELPD") -> Verdict:
    test, missing = result.se_test / len(result), -result.bias / len(result)
    # The first order cannot vouch for weights whose tail it does not see.
    outcome = worst(graded(missing, test / 3, test), "pass" if result.trusted else "warn")
    tail = "" if result.trusted else "with such k-hat the bias can be far larger; "
    return Verdict(
        "How large is the bias of log p(x) from the finite number of draws?",
        missing,
        spread(result.rise) / len(result),
        "nats per datum below the truth, to first order",
        f"at most a third of the sampling standard error of the test set, {test:.3g}, and trustworthy k-hat",
        "estimate: Nowozin 2018, ICLR, jackknife variational inference; share: convention",
        outcome,
        remedy=f"report it as a lower bound; {tail}{more_draws(result)}",
        name="log_px_bias",
    )


def _upper_bound(result: "ELPD") -> Verdict:
    width, largest = float(result.width.mean()), widest(result)
    return Verdict(
        "Do enough draws support the upper bound on log p(x)?",
        width,
        spread(result.width) / len(result),
        "nats per datum, from the estimate to CUBO",
        f"at most {largest:.2f}, an effective sample size of {_FEW_DRAWS}",
        "CUBO: Dieng et al. 2017, arXiv:1611.00328; its estimate is 1/2 log(K / ESS) above that of log p(x), "
        "never more than 1/2 log K, and biased down; 10 draws: convention",
        graded(width, largest, 0.5 * log(result.num_draws / 2)),
        "" if width <= largest else f"CUBO may lie below log p(x) here; {more_draws(result)}",
        "sandwich",
    )
