"""Verdicts of a comparison, and its result in words."""

from collections.abc import Sequence
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING

import numpy as np

from analysis.experiments.comparison.differences import Difference
from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.power import ALPHA, PowerAnalysis, power_analysis

if TYPE_CHECKING:
    from analysis.experiments.comparison.result import ExperimentComparison

_SOURCES = {"seeds": "seeds", "data": "test data", "interaction": "their interaction and Monte Carlo error"}


def headline(comparison: "ExperimentComparison") -> str:
    """The winner, its lead and the certainty of both, in a few sentences."""
    return " ".join([_lead(comparison), *_caveats(comparison)])


def _lead(comparison: "ExperimentComparison") -> str:
    winner, rivals = comparison.winner, comparison.rivals
    value, error = comparison.estimates.mean("log_px")
    mean = plus_minus(float(value[0]), float(error[0]))
    if not rivals:
        return f"{winner} is the only variant; its mean log p(x) is {mean} nats per datum."
    nearest, level = rivals[0], not_significant(comparison)
    if level:
        below = [pair.second for pair in rivals if pair.significant]
        contrast = f", significantly higher than that of {listed(below)}" if below else ""
        return (
            f"{winner} has the highest mean log p(x), {mean} nats per datum{contrast}; its difference from "
            f"{listed([pair.second for pair in level])} is not significant. The next variant, {nearest.second}, is "
            f"lower by {nearest}."
        )
    claim = f"{winner} predicts held-out data best"
    if not all(pair.settled for pair in rivals):
        claim = f"{winner} has the highest lower bound on log p(x), which does not show that its model is best"
    elif comparison.estimates.num_seeds == 1:
        claim = f"The fit of {winner} predicts held-out data best"
    if len(rivals) == 1:
        return f"{claim}: its mean log p(x) is significantly higher than that of {nearest.second}, by {nearest}."
    others = "both others" if len(rivals) == 2 else f"all {len(rivals)} others"
    return (
        f"{claim}: its mean log p(x) is significantly higher than that of {others}; the next, {nearest.second}, is "
        f"lower by {nearest}."
    )


def _caveats(comparison: "ExperimentComparison") -> list[str]:
    caveats = []
    if comparison.estimates.num_seeds == 1:
        caveats.append(
            f"With one seed, the result refers to these {len(comparison.labels)} fits and not to their objectives: "
            "other seeds could reverse it."
        )
    unsettled, bounds = not_settled(comparison), comparison.estimates.lower_bounds
    if unsettled:
        caveats.append(
            f"log p(x) of {listed(unsettled)} is a lower bound whose bias may exceed the difference (k-hat too large, "
            "or too few draws), so that the order may be one of guides rather than of models."
        )
    elif bounds:
        caveats.append(
            f"log p(x) of {listed(bounds)} is a lower bound of unknown bias, because k-hat is too large for many data."
        )
    return caveats


def not_significant(comparison: "ExperimentComparison") -> list[Difference]:
    """The winner minus each variant that it does not significantly exceed."""
    return [pair for pair in comparison.rivals if not pair.significant]


def not_settled(comparison: "ExperimentComparison") -> list[str]:
    """Variants that the winner significantly exceeds, but by less than the bias of their log p(x) may be."""
    return [pair.second for pair in comparison.rivals if pair.significant and not pair.settled]


def advice(pair: Difference, num_comparisons: int) -> str:
    """Dominant source of error of a difference, and the seeds or data that would make it significant."""
    mean = pair.mean
    if mean.se == 0:
        return "the two predict exactly alike on these data"
    power = power_analysis(mean, num_comparisons=num_comparisons)
    uncertain = abs(mean.estimate) < mean.se
    if not mean.of_objectives:
        data = (
            "" if uncertain or power.num_data is None else f"; about {power.num_data:,} data would distinguish the fits"
        )
        return f"one seed shows no spread over seeds, and the number required is unknown: fit at least 3 of each{data}"
    shares = ", ".join(f"{_SOURCES[name]} {share:.0%}" for name, share in power.variance_shares.items())
    most = max(power.variance_shares, key=lambda name: power.variance_shares[name])
    source = f"most of the variance of the difference comes from {_SOURCES[most]} ({shares})"
    if uncertain:
        return (
            f"{source}; the difference is smaller than its standard error, too uncertain for planning: with "
            f"{counted(mean.num_seeds, 'seed')} and {mean.num_data:,} data, 4 of 5 such experiments would detect a "
            f"difference above {power.detectable:.2g} nats"
        )
    return f"{source}; to detect a difference of this size in 4 of 5 experiments: {_required(pair, power)}"


def _required(pair: Difference, power: PowerAnalysis) -> str:
    sizes = (("seeds", pair.mean.num_seeds, power.num_seeds), ("data", pair.mean.num_data, power.num_data))
    enough = [f"about {number:,} {what} (now {now:,})" for what, now, number in sizes if number is not None]
    vain = [f"more {what} alone do not suffice" for what, _, number in sizes if number is None]
    return ", ".join(filter(None, [" or ".join(enough), " and ".join(vain)]))


def verdicts(comparison: "ExperimentComparison") -> tuple[Verdict, ...]:
    """One for each variant but the winner, then number of seeds, k-hat, and bias of log p(x)."""
    return (
        *(_lead_verdict(comparison, pair) for pair in comparison.rivals),
        _seeds_verdict(comparison),
        _k_hat_verdict(comparison),
        *_bias_verdict(comparison),
    )


def _lead_verdict(comparison: "ExperimentComparison", pair: Difference) -> Verdict:
    num_pairs = len(comparison.pairs)
    todo = ""
    if not pair.significant:
        todo = advice(pair, num_pairs)
    elif not pair.settled:
        todo = (
            f"log p(x) of {pair.second} is a lower bound whose bias may exceed the difference; raise num_draws (now "
            f"{comparison.estimates.num_draws:,}) or compare guides of one family"
        )
    return Verdict(
        f"Does {pair.first} predict held-out data better than {pair.second}?",
        pair.mean.estimate,
        pair.mean.se,
        "nats per datum",
        f"p below {ALPHA:g}, adjusted for {counted(num_pairs, 'pair')} (p = {pair.p_adjusted:.2g}), and a bias of log "
        "p(x) too small to reverse the order",
        "Holm 1979, Scandinavian Journal of Statistics 6; error: see methods",
        "pass" if pair.significant and pair.settled else "warn",
        todo,
        "difference",
    )


def _seeds_verdict(comparison: "ExperimentComparison") -> Verdict:
    num_seeds = comparison.estimates.num_seeds
    enough = num_seeds > 1
    return Verdict(
        "Are there enough seeds to compare objectives rather than single fits?",
        float(num_seeds),
        None,
        f"seed{'s' * enough} of each variant",
        "at least 2",
        "convention: the fewest that show a spread; the interval is wide with so few",
        "pass" if enough else "warn",
        "" if enough else "fit every variant with more seeds; 3 to 5 give a useful interval",
        "num_seeds",
    )


def _k_hat_verdict(comparison: "ExperimentComparison") -> Verdict:
    estimates = comparison.estimates
    worst = estimates.runs["share_bad"].max(1)
    most = int(worst.argmax())
    share = float(worst[most])
    outcome: Outcome = "warn" if estimates.lower_bounds else "pass"
    return Verdict(
        "For what share of the data is log p(x) only a lower bound, in the worst run?",
        share,
        sqrt(share * (1 - share) / estimates.num_data),
        f"of the data ({estimates.labels[most]})" if share else "of the data",
        f"at most 0.1 with k-hat above {estimates.good_k:.2f}",
        "k-hat: Vehtari et al. 2024, arXiv:1507.02646, sec. 3.2; share: convention, as in `analysis.density.elpd`",
        outcome,
        ""
        if outcome == "pass"
        else f"log p(x) of {listed(estimates.lower_bounds)} is too low by an unknown amount, and the ranking may be "
        f"one of guides; raise num_draws (now {estimates.num_draws:,}), or estimate log p(x) by annealing "
        "(`analysis.inference_gaps`)",
        "pareto_k",
    )


def _bias_verdict(comparison: "ExperimentComparison") -> list[Verdict]:
    estimates, rivals = comparison.estimates, comparison.rivals
    bias = estimates.pointwise("rise").mean((1, 2))
    most = int(np.argmax(bias))
    if not isfinite(bias[most]):
        return []
    leads = [abs(pair.mean.estimate) for pair in rivals] or [nan]
    lead = float(np.nanmin(leads)) if isfinite(leads[0]) else nan
    error = min((pair.mean.se for pair in rivals), default=estimates.levels[0].se)
    small = bias[most] <= max(lead / 2 if isfinite(lead) else 0.0, error / 3)
    return [
        Verdict(
            "How large is the remaining bias of log p(x), in the worst variant?",
            float(bias[most]),
            None,
            f"nats per datum too low, to first order ({estimates.labels[most]})",
            "at most half of the winner's lead, or a third of its standard error",
            "estimate: Nowozin 2018, ICLR, jackknife variational inference; share: convention",
            "pass" if small else "warn",
            "" if small else f"raise num_draws (now {estimates.num_draws:,})",
            "log_px_bias",
        )
    ]


def listed(names: Sequence[str], most: int = 5) -> str:
    """``a, b and c``; beyond ``most`` names the rest is counted."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, what: str) -> str:
    """``3 seeds``, ``1 seed``."""
    return f"{number:,} {what}{'s' * (number != 1)}"
