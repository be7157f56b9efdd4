"""An experiment as files: a page that says who wins and whether the data can tell, a table, a tree and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis import plotting as plots
from analysis.draws.datatree import write_netcdf
from analysis.experiments.comparison import ExperimentComparison
from analysis.experiments.variants import Difference
from analysis.plotting.experiment import Forest, plot_agreement, plot_curves, plot_variants
from analysis.results.estimate import Estimate, plus_minus
from analysis.results.page import Block, Cell, Heading, Page, Picture, Section, Table
from analysis.stats.planning import LEVEL
from vae_pyro.core.files import write_atomically

type Array = np.ndarray[Any, Any]
type Histories = Mapping[tuple[str, int], Sequence[Mapping[str, float]]]

_Z = 1.959964
_COLUMNS = {
    "log_px": "log p(x)",
    "elbo": "ELBO",
    "kl": "KL",
    "gap": "gap",
    "approximation": "approx.",
    "amortization": "amort.",
    "active_units": "active",
    "share_bad": "bad k-hat",
    "seconds": "s",
}
_FIRST = ("log_px", "elbo", "kl", "gap", "active_units")
_MOST_PAIRS, _MOST_ADVICE = 45, 5


def experiment_page(
    comparison: ExperimentComparison,
    facts: Mapping[str, Cell] | None = None,
    *,
    histories: Histories | None = None,
    provenance: Mapping[str, Cell] | None = None,
) -> Page:
    """The page of a comparison.

    Args:
        comparison: of `analysis.experiments.comparison.compare_variants`.
        facts: about data and models, shown under the title, such as ``{"data": "mnist, 10,000 held out"}``.
        histories: rows of ``history.csv`` by label and seed, for training curves; runs without one are left out.
        provenance: versions and settings, shown at the end.
    """
    first = comparison.held_out[0][0]
    shown: dict[str, Cell] = {
        **(facts or {}),
        "variants": len(comparison.labels),
        "seeds of each": comparison.num_seeds,
        "test data": f"{comparison.num_data:,}",
        "observed as": first.space,
        "draws for each datum": f"{comparison.num_draws:,}",
    }
    sections = [_winner_section(comparison), _differences_section(comparison), _trust_section(comparison)]
    sections += [_agreement_section(comparison), _runs_section(comparison, histories or {})]
    return Page(
        title=_title(comparison),
        sections=[section for section in sections if section is not None],
        facts=shown,
        lead="\n\n".join([_literal(comparison.headline), *map(_literal, comparison.notes)]),
        provenance={**(provenance or {}), "fingerprint of the test data": first.fingerprint[:16] or "unknown"},
        subtitle="Comparison of objectives",
    )


def write_comparison(
    comparison: ExperimentComparison,
    path: str | Path,
    *,
    histories: Histories | None = None,
    facts: Mapping[str, Cell] | None = None,
    provenance: Mapping[str, Cell] | None = None,
) -> list[Path]:
    """Write ``comparison.nc``, ``.csv``, ``.png`` and ``.html`` into a folder, each whole or not at all.

    Everything is made before the first is written, and the same comparison gives the same bytes.

    Args:
        comparison: of `analysis.experiments.comparison.compare_variants`.
        path: the folder; made where it is absent.
        histories: see `experiment_page`; likewise ``facts`` and ``provenance``.

    Returns:
        The files.
    """
    folder = Path(path)
    html = experiment_page(comparison, facts, histories=histories, provenance=provenance).render().encode()
    table, tree, figure = comparison.csv().encode(), comparison.tree(), variants_figure(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"comparison.{kind}" for kind in ("nc", "csv", "png", "html")]
    write_netcdf(tree, files[0])
    write_atomically(files[1], table)
    plots.save(figure, files[2])
    write_atomically(files[3], html)
    return files


def variants_figure(comparison: ExperimentComparison) -> Any:
    """log p(x) of every variant and its difference from the baseline, see `plot_variants`."""
    levels = Forest(
        comparison.labels,
        comparison.runs["log_px"],
        np.array([mean.interval() for mean in comparison.levels]),
        np.array([_Z * mean.se_data for mean in comparison.levels]),
    )
    chosen = comparison.differences
    if not chosen:
        return plot_variants(levels)
    place = {label: index for index, label in enumerate(comparison.labels)}
    runs = comparison.runs["log_px"]
    same = len({pair.second for pair in chosen}) == 1
    differences = Forest(
        [pair.first if same else f"{pair.first} - {pair.second}" for pair in chosen],
        np.stack([runs[place[pair.first]] - runs[place[pair.second]] for pair in chosen]),
        np.array([pair.mean.interval() for pair in chosen]),
        np.array([_Z * pair.mean.se_data for pair in chosen]),
        [pair.told_apart for pair in chosen],
    )
    return plot_variants(levels, differences, baseline=chosen[0].second if same else "its baseline")


# --- the sections -------------------------------------------------------------------------------------------------


def _winner_section(comparison: ExperimentComparison) -> Section:
    others = [name for name in _COLUMNS if name in comparison.runs and name not in _FIRST]
    spread = " ± standard error over seeds" if comparison.num_seeds > 1 else "; one seed has no standard error"
    said = [
        f"{pair.first} less {pair.second}: {plus_minus(pair.mean.estimate, pair.mean.se)}"
        for pair in comparison.differences
    ]
    blocks: list[Block] = [
        Picture.of(
            variants_figure(comparison),
            alt=f"Mean log p(x) of {len(comparison.labels)} variants, the highest {comparison.winner}"
            + (f"; differences in nats per datum: {'; '.join(said)}." if said else "."),
            caption="Mean log p(x) of each variant, and its paired difference from the baseline. The thin line is the "
            "95 % interval of both sources of error, the thick part of it that of the test data alone; grey dots are "
            "seeds. A filled diamond is told apart from 0 after correction. Intervals of levels may overlap where the "
            "paired difference is clear: both saw the same data.",
            metrics={"labels": list(comparison.labels), "log_px": comparison.runs["log_px"]},
            name="variants",
        ),
        Table(
            f"Means over {comparison.num_seeds} seed{'s' * (comparison.num_seeds > 1)}{spread}, nats per datum",
            ["variant", *(_COLUMNS[name] for name in _FIRST)],
            _means(comparison, _FIRST),
            note="The highest log p(x) first. Gap: log p(x) - ELBO. Active: latents whose posterior mean varies by "
            "more than 0.01.",
            name="means",
        ),
        Table(
            f"The same of guides and fits{spread}",
            ["variant", *(_COLUMNS[name] for name in others)],
            _means(comparison, others),
            note=_columns_note(comparison),
            name="guides-and-fits",
        ),
    ]
    return Section(
        "Which variant predicts best?",
        blocks,
        verdicts=comparison.verdicts[: len(comparison.rivals)],
        methods="Every fit was evaluated on the same test data, observed alike, with the same number of draws and the "
        "same noise. log p(x) is estimated for each datum by importance sampling with the guide as proposal. The "
        "winner is the variant with the highest mean over seeds and data; it is told apart from another only where the "
        f"p-value of their paired difference is below {LEVEL:g} after Holm's correction over all pairs of variants.",
        references=[
            "Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders. arXiv:1509.00519",
            "Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.",
        ],
        metrics={"headline": comparison.headline, "notes": list(comparison.notes)},
        name="winner",
    )


def _differences_section(comparison: ExperimentComparison) -> Section | None:
    if not comparison.pairs:
        return None
    blocks: list[Block] = []
    if comparison.differences:
        blocks.append(_table("Differences from the baseline", comparison.differences, "baseline"))
    pairs = comparison.pairs[:_MOST_PAIRS]
    shown = (
        "All pairs"
        if len(pairs) == len(comparison.pairs)
        else f"The first {len(pairs)} of {len(comparison.pairs)} pairs"
    )
    blocks.append(_table(f"{shown} of variants, the better one first", pairs, "pairs"))
    blocks.append(Heading("Can the data tell?"))
    if comparison.level_with:
        blocks += [
            f"{_literal(pair.first)} and {_literal(pair.second)}: {comparison.helping(pair)}."
            for pair in comparison.level_with[:_MOST_ADVICE]
        ]
        left = len(comparison.level_with) - _MOST_ADVICE
        if left > 0:
            blocks.append(f"The winner is not told apart from {left} more, which are further behind.")
    else:
        blocks.append(f"The data tell {_literal(comparison.winner)} from every other variant.")
    blocks.append(
        "With one seed the figures speak of these fits: what another seed would have given is not in any of the errors."
        if comparison.num_seeds == 1
        else "The errors are for other seeds of the same objectives and other test data from the same source; the "
        "training data were the same throughout and are not a source of error here."
    )
    return Section(
        "How large are the differences?",
        blocks,
        methods="A difference is measured once for each pair of a seed and a datum: seed s of one variant less seed s "
        "of the other, at the same datum. Seeds and data are two random factors, crossed without replication. The "
        "components of variance come from the mean squares of the analysis of variance; the error adds what seeds, "
        "data and their interaction do, and the interval takes Student's t with the degrees of freedom of each. The "
        "numbers of seeds or data that would help take the present components for true and a chance of 4 in 5 of "
        "finding the difference.",
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


def _trust_section(comparison: ExperimentComparison) -> Section:
    rows: list[list[Cell]] = []
    for index, label in enumerate(comparison.labels):
        runs = comparison.held_out[index]
        share = comparison.runs["share_bad"][index]
        rows.append(
            [
                label,
                float(share.mean()),
                float(share.max()),
                _rounded(np.mean([run.elpd.mcse / len(run) for run in runs])),
                _rounded(np.mean([run.rise.mean() for run in runs])),
                float(np.mean([run.upper.mean() for run in runs])),
                label not in comparison.lower_bounds,
            ]
        )
    columns = ["variant", "bad k-hat", "worst seed", "draws ±", "missing", "CUBO", "trusted"]
    doubtful = [pair.second for pair in comparison.beaten if not pair.settled]
    said = "No variant lacks so much that more draws could turn the order of those that are told apart."
    if doubtful:
        said = (
            f"{', '.join(map(_literal, doubtful))} may lack more than what it is behind by: the ranking could be one "
            "of guides, which decide how near the estimate comes to log p(x), and not of models."
        )
    return Section(
        "Can log p(x) be trusted?",
        [
            said,
            Table(
                "Estimates of log p(x), nats per datum, means over seeds",
                columns,
                rows,
                name="trust",
                note=f"Bad k-hat: share of data above {comparison.good_k:.2f}, mean over seeds and in the worst; "
                "trusted where that is at most a tenth in every seed. Draws ±: Monte Carlo error of a run's mean. "
                "Missing: to first order, for want of draws. CUBO bounds log p(x) from above in the limit of many "
                "draws.",
            ),
        ],
        verdicts=comparison.verdicts[len(comparison.rivals) + 1 :],
        methods="log p(x) by importance sampling is a lower bound on average, and the nearer to the truth the nearer "
        "the guide is to the posterior. A variant with a poor guide is underrated. k-hat says for which data; what is "
        "missing to first order is estimated from halves of the draws.",
        references=[
            "Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646",
            "Dieng et al. 2017, Variational inference via chi upper bound minimization. arXiv:1611.00328",
            "Nowozin 2018, Debiasing evidence approximations: on importance-weighted autoencoders and jackknife "
            "variational inference, ICLR.",
        ],
        name="trust",
    )


def _agreement_section(comparison: ExperimentComparison) -> Section | None:
    known = [
        (label, agreed)
        for label, agreed in zip(comparison.labels, comparison.agreements, strict=True)
        if agreed is not None
    ]
    if not known:
        return None
    upper = np.triu_indices(comparison.num_seeds, 1)
    rows: list[list[Cell]] = [
        [
            label,
            _figure(agreed.cka_mean, agreed.cka_se),
            _figure(agreed.udr_mean, agreed.udr_se),
            ", ".join(str(count) for count in agreed.num_active),
        ]
        for label, agreed in known
    ]
    said = "; ".join(f"{label} CKA {agreed.cka_mean:.2f}, UDR {agreed.udr_mean:.2f}" for label, agreed in known)
    return Section(
        "Do seeds agree on the latent space?",
        [
            Picture.of(
                plot_agreement(
                    [label for label, _ in known],
                    [agreed.cka[upper] for _, agreed in known],
                    [agreed.udr[upper] for _, agreed in known],
                ),
                alt=f"Agreement of pairs of seeds: {said}.",
                caption="A mark for each pair of seeds. CKA is 1 where two seeds have the same space up to rotation "
                "and scale; UDR is near 1 where they have the same axes as well. A high CKA with a low UDR is a space "
                "that seeds rotate.",
                metrics={label: {"cka": agreed.cka, "udr": agreed.udr} for label, agreed in known},
                name="agreement-of-pairs",
            ),
            Table(
                "Agreement of latent spaces, mean over pairs of seeds ± standard error",
                ["variant", "linear CKA", "UDR", "latents that count, by seed"],
                rows,
                name="agreement",
                note="No agreement is no fault: log p(x) does not ask for the same axes. The error is the jackknife's "
                "over seeds, and wants 3 of them.",
            ),
        ],
        methods="Posterior means of the test data are compared between seeds of one variant, on latents with a mean KL "
        "above 0.01 nats, or a variance of the posterior mean above 0.01 where the KL is not closed.",
        references=[
            "Kornblith et al. 2019, Similarity of neural network representations revisited. arXiv:1905.00414",
            "Duan et al. 2020, Unsupervised model selection for variational disentangled representation learning. "
            "arXiv:1905.12614",
        ],
        name="agreement",
    )


def _runs_section(comparison: ExperimentComparison, histories: Histories) -> Section:
    names = [name for name in _COLUMNS if name in comparison.runs]
    rows: list[list[Cell]] = [
        [
            f"{label}, seed {seed}",
            comparison.held_out[i][j].epochs,
            *(_figure(float(comparison.runs[name][i, j])) for name in names),
        ]
        for i, label in enumerate(comparison.labels)
        for j, seed in enumerate(comparison.seeds[i])
    ]
    blocks: list[Block] = []
    for key, ylabel in (("validation_elbo", "validation ELBO"), ("elbo", "training ELBO")):
        curves = _curves(comparison, histories, key)
        if curves:
            ends = "; ".join(f"{label} {np.mean([v[-1] for _, v in each]):.2f}" for label, each in curves.items())
            blocks.append(
                Picture.of(
                    plot_curves(curves, ylabel=f"{ylabel}, nats per datum"),
                    alt=f"The {ylabel} over epochs for {len(curves)} variants; means at the end, in nats: {ends}.",
                    caption=f"The {ylabel} over epochs: thin lines are seeds, thick ones their mean as far as all "
                    "seeds went. The ELBO of every variant is shown, whatever it maximised.",
                    name="curves",
                )
            )
            break
    blocks.append(
        Table(
            "Every run, nats per datum",
            ["run", "epochs", *(_COLUMNS[n] for n in names)],
            rows,
            name="runs",
            note=_columns_note(comparison),
        )
    )
    return Section("How did the fits go?", blocks, name="runs")


def _curves(comparison: ExperimentComparison, histories: Histories, key: str) -> dict[str, list[tuple[Array, Array]]]:
    curves: dict[str, list[tuple[Array, Array]]] = {}
    for label, seeds in zip(comparison.labels, comparison.seeds, strict=True):
        for seed in seeds:
            rows = [row for row in histories.get((label, int(seed)), ()) if key in row]
            if rows:
                epochs = np.array([row["epoch"] for row in rows], dtype=np.float64)
                curves.setdefault(label, []).append((epochs, np.array([row[key] for row in rows])))
    return curves


def _table(caption: str, pairs: Sequence[Difference], name: str) -> Table:
    rows: list[list[Cell]] = []
    for pair in pairs:
        low, high = (plus_minus(end, pair.mean.se).split(" ±")[0] for end in pair.mean.interval())
        parts = (pair.mean.se_seeds, pair.mean.se_data, pair.mean.se_interaction)
        rows.append(
            [
                f"{pair.first} less {pair.second}",
                Estimate(pair.mean.estimate, pair.mean.se),
                f"{low}\u00a0to\u00a0{high}",
                *(None if np.isnan(part) else f"{part:.2g}" for part in parts),
                _p(pair.p_adjusted),
                pair.told_apart,
            ]
        )
    columns = ["variants", "difference", "95 % interval", "seeds", "data", "both", "p", "told apart"]
    family = pairs[0].family
    return Table(
        f"{caption}: mean log p(x), nats per datum",
        columns,
        rows,
        note="Seeds, data and both: the parts of the standard error from seeds, from test data, and from what seeds do "
        "to single data (with the draws); their squares add up to its square, and one that came out negative is 0. The "
        f"interval is of the pair alone; p is corrected by Holm's rule for {family} comparison{'s' * (family > 1)}.",
        name=name,
    )


def _p(value: float) -> str:
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def _rounded(value: Any) -> float:
    return float(f"{value:.2g}")


def _figure(value: float, error: float | None = None) -> Cell:
    if not np.isfinite(value):
        return None
    return value if error is None or not np.isfinite(error) else Estimate(value, error)


def _means(comparison: ExperimentComparison, names: Sequence[str]) -> list[list[Cell]]:
    columns = [comparison.mean(name) for name in names]
    return [
        [label, *(_figure(float(mean[index]), float(error[index])) for mean, error in columns)]
        for index, label in enumerate(comparison.labels)
    ]


def _columns_note(comparison: ExperimentComparison) -> str:
    parts = "Approx. and amort.: the parts of the gap of the guide's family and of the encoder, nats per datum. "
    return (
        f"{parts if 'approximation' in comparison.runs else ''}Bad k-hat: share of data above {comparison.good_k:.2f}. "
        "s: seconds of the fit."
    )


def _title(comparison: ExperimentComparison) -> str:
    count = len(comparison.labels)
    return f"{count} variants, {comparison.num_seeds} seed{'s' * (comparison.num_seeds > 1)} of each"


def _literal(text: str) -> str:
    """Text whose backticks, which would make code of what is between them, are shown as quotes."""
    return text.replace("`", "'")
