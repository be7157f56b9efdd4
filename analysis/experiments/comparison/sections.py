"""Sections of the page of a comparison about log p(x): ranking, differences, reliability."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.experiments.comparison.differences import Difference, interval_text
from analysis.experiments.comparison.verdicts import advice, not_settled, not_significant
from analysis.results.estimate import Estimate, plus_minus
from analysis.results.page import Block, Cell, Heading, Picture, Section, Table
from analysis.stats.power import ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.experiments.comparison.estimates import VariantEstimates
    from analysis.experiments.comparison.result import ExperimentComparison

# Headings of the estimates of a run.
COLUMNS = {
    "log_px": "log p(x)",
    "elbo": "ELBO",
    "kl": "KL",
    "gap": "gap",
    "approximation": "approx.",
    "amortization": "amort.",
    "active_units": "active",
    "share_bad": "high k-hat",
    "seconds": "s",
}
_FIRST = ("log_px", "elbo", "kl", "gap", "active_units")
_MAX_PAIRS, _MAX_ADVICE = 45, 5


def ranking_section(comparison: "ExperimentComparison", figure: "Figure") -> Section:
    """Mean log p(x) and the other estimates of each variant, with the picture of them all."""
    estimates = comparison.estimates
    others = [name for name in COLUMNS if name in estimates.runs and name not in _FIRST]
    spread = " ± standard error over seeds" if estimates.num_seeds > 1 else "; one seed has no standard error"
    shown = [
        f"{pair.first} minus {pair.second}: {plus_minus(pair.mean.estimate, pair.mean.se)}"
        for pair in comparison.differences
    ]
    blocks: list[Block] = [
        Picture.of(
            figure,
            alt=f"Mean log p(x) of {len(comparison.labels)} variants, the highest {comparison.winner}"
            + (f"; differences in nats per datum: {'; '.join(shown)}." if shown else "."),
            caption="Mean log p(x) of each variant, and its paired difference from the baseline. The thin line is the "
            "95 % interval from seeds and test data, its thick part that of the test data alone; grey dots are seeds. "
            "A filled diamond marks a significant difference after correction. Intervals of levels may overlap where "
            "the paired difference is significant: both variants were evaluated on the same data.",
            metrics={"labels": list(comparison.labels), "log_px": estimates.runs["log_px"]},
            name="variants",
        ),
        Table(
            f"Means over {estimates.num_seeds} seed{'s' * (estimates.num_seeds > 1)}{spread}, nats per datum",
            ["variant", *(COLUMNS[name] for name in _FIRST)],
            _means(estimates, _FIRST),
            note="The highest log p(x) first. Gap: log p(x) - ELBO. Active: latents whose posterior mean varies by "
            "more than 0.01.",
            name="means",
        ),
        Table(
            f"Guides and fits{spread}",
            ["variant", *(COLUMNS[name] for name in others)],
            _means(estimates, others),
            note=columns_note(estimates),
            name="guides-and-fits",
        ),
    ]
    return Section(
        "Ranking of variants",
        blocks,
        verdicts=comparison.verdicts[: len(comparison.rivals)],
        methods="Every fit was evaluated on the same test data, with the same observation, number of draws and noise. "
        "log p(x) is estimated for each datum by importance sampling with the guide as proposal. The winner is the "
        "variant with the highest mean over seeds and data; it is significantly better than another where the p-value "
        f"of their paired difference is below {ALPHA:g} after Holm's correction for all pairs of variants.",
        references=[
            "Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders. arXiv:1509.00519",
            "Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.",
        ],
        metrics={"headline": comparison.headline, "notes": list(comparison.notes)},
        name="winner",
    )


def differences_section(comparison: "ExperimentComparison") -> Section | None:
    """Differences from the baseline and between all pairs; ``None`` for one variant."""
    if not comparison.pairs:
        return None
    blocks: list[Block] = []
    if comparison.differences:
        blocks.append(_table("Differences from the baseline", comparison.differences, "baseline"))
    pairs, count = comparison.pairs[:_MAX_PAIRS], len(comparison.pairs)
    shown = "All pairs" if len(pairs) == count else f"The first {len(pairs)} of {count} pairs"
    blocks += [
        _table(f"{shown} of variants, the better one first", pairs, "pairs"),
        Heading("Statistical power"),
        *_power(comparison),
        "With one seed the estimates refer to these fits: the variation over seeds is part of none of the errors."
        if comparison.estimates.num_seeds == 1
        else "The errors are for other seeds of the same objectives and other test data from the same source; the "
        "training data were the same for all fits and are not a source of error here.",
    ]
    return Section(
        "Pairwise differences",
        blocks,
        methods="A difference is measured once for each pair of a seed and a datum: seed s of one variant minus seed s "
        "of the other, at the same datum. Seeds and data are two random factors, crossed without replication. The "
        "components of variance come from the mean squares of the analysis of variance; the standard error adds the "
        "contributions of seeds, data and their interaction, and the interval uses Student's t with the degrees of "
        "freedom of each. The numbers of seeds or data for a power of 0.8 take the present components as exact.",
        references=[
            "Cornfield & Tukey 1956, Average values of mean squares in factorials, Annals of Mathematical Statistics "
            "27.",
            "Banerjee 1960, Approximate confidence interval for linear functions of means of k populations when the "
            "population variances are not equal, Sankhya 22.",
            "Hillis 2007, A comparison of denominator degrees of freedom methods for multiple observer ROC analysis, "
            "Statistics in Medicine 26.",
        ],
        verdicts=comparison.verdicts[len(comparison.rivals) : len(comparison.rivals) + 1],
        name="differences",
    )


def _power(comparison: "ExperimentComparison") -> list[Block]:
    level = not_significant(comparison)
    if not level:
        return [f"{literal(comparison.winner)} is significantly better than every other variant."]
    blocks: list[Block] = [
        f"{literal(pair.first)} and {literal(pair.second)}: {advice(pair, len(comparison.pairs))}."
        for pair in level[:_MAX_ADVICE]
    ]
    left = len(level) - _MAX_ADVICE
    if left > 0:
        blocks.append(f"The winner is not significantly better than {left} more, whose means are lower.")
    return blocks


def reliability_section(comparison: "ExperimentComparison") -> Section:
    """Whether the estimates of log p(x) are accurate enough for the ranking."""
    estimates = comparison.estimates
    rows: list[list[Cell]] = []
    for index, label in enumerate(estimates.labels):
        runs, share = estimates.held_out[index], estimates.runs["share_bad"][index]
        rows.append(
            [
                label,
                float(share.mean()),
                float(share.max()),
                _rounded(np.mean([run.elpd.mcse / len(run) for run in runs])),
                _rounded(np.mean([run.rise.mean() for run in runs])),
                float(np.mean([run.upper.mean() for run in runs])),
                label not in estimates.lower_bounds,
            ]
        )
    doubtful = not_settled(comparison)
    conclusion = "No variant has a bias that could reverse the order of significantly different variants."
    if doubtful:
        conclusion = (
            f"The bias of {', '.join(map(literal, doubtful))} may exceed its difference from the winner: the ranking "
            "may be one of guides, which determine how close the estimate comes to log p(x), and not of models."
        )
    return Section(
        "Reliability of log p(x)",
        [
            conclusion,
            Table(
                "Estimates of log p(x), nats per datum, means over seeds",
                ["variant", "high k-hat", "worst seed", "MCSE", "bias", "CUBO", "reliable"],
                rows,
                name="trust",
                note=f"High k-hat: share of data above {estimates.good_k:.2f}, mean over seeds and in the worst; "
                "reliable where that is at most a tenth in every seed. MCSE: Monte Carlo standard error of the mean of "
                "a run. Bias: first-order estimate of how much too low log p(x) is. CUBO bounds log p(x) from above in "
                "the limit of many draws.",
            ),
        ],
        verdicts=comparison.verdicts[len(comparison.rivals) + 1 :],
        methods="log p(x) by importance sampling is a lower bound on average, closer to the truth the closer the guide "
        "is to the posterior, so that a variant with a poor guide is underrated. k-hat identifies the data for which "
        "this matters; the bias is estimated to first order from halves of the draws.",
        references=[
            "Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646",
            "Dieng et al. 2017, Variational inference via chi upper bound minimization. arXiv:1611.00328",
            "Nowozin 2018, Debiasing evidence approximations: on importance-weighted autoencoders and jackknife "
            "variational inference, ICLR.",
        ],
        name="trust",
    )


def _table(caption: str, pairs: Sequence[Difference], name: str) -> Table:
    rows: list[list[Cell]] = []
    for pair in pairs:
        parts = (pair.mean.se_seeds, pair.mean.se_data, pair.mean.se_interaction)
        rows.append(
            [
                f"{pair.first} minus {pair.second}",
                Estimate(pair.mean.estimate, pair.mean.se),
                interval_text(pair.mean, "\u00a0to\u00a0"),
                *(None if np.isnan(part) else f"{part:.2g}" for part in parts),
                "<\u00a00.001" if pair.p_adjusted < 0.001 else f"{pair.p_adjusted:.3f}",
                pair.significant,
            ]
        )
    family = pairs[0].family
    return Table(
        f"{caption}: mean log p(x), nats per datum",
        ["variants", "difference", "95 % interval", "seeds", "data", "interaction", "p", "significant"],
        rows,
        note="Seeds, data and interaction: the parts of the standard error from seeds, from test data, and from their "
        "interaction (which includes Monte Carlo error); their squares add up to its square, and a negative component "
        f"is set to 0. The interval is that of the pair alone; p is adjusted by Holm's rule for {family} "
        f"comparison{'s' * (family > 1)}.",
        name=name,
    )


def optional(value: float, error: float | None = None) -> Cell:
    """A cell of a table; ``None`` where the value is not finite."""
    if not np.isfinite(value):
        return None
    return value if error is None or not np.isfinite(error) else Estimate(value, error)


def columns_note(estimates: "VariantEstimates") -> str:
    """Explains the columns about guides and fits."""
    parts = "Approx. and amort.: the gaps of the guide's family and of the encoder, nats per datum. "
    return (
        f"{parts if 'approximation' in estimates.runs else ''}High k-hat: share of data above {estimates.good_k:.2f}. "
        "s: duration of the fit in seconds."
    )


def literal(text: str) -> str:
    """Text in which backticks, which would mark what is between them as code, are shown as quotes."""
    return text.replace("`", "'")


def _rounded(value: Any) -> float:
    return float(f"{value:.2g}")


def _means(estimates: "VariantEstimates", names: Sequence[str]) -> list[list[Cell]]:
    columns = [estimates.mean(name) for name in names]
    return [
        [label, *(optional(float(mean[index]), float(error[index])) for mean, error in columns)]
        for index, label in enumerate(estimates.labels)
    ]
