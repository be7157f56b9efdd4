"""A drift test as a page: the test, the latents that moved, and the data that are the most surprising."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.monitoring.drift.plot import plot_latent_drift, plot_latent_marginals
from analysis.monitoring.drift.result import NAMES, Drift
from analysis.plotting import plot_data, plot_scores
from analysis.results.blocks import Block, Cell, Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.page import Page
from analysis.results.text import flow

type Array = np.ndarray[Any, Any]

_MOST_ROWS = 20
_REFERENCES = (
    "Rabanser, Günnemann & Lipton 2019, Failing loudly: an empirical study of methods for detecting dataset shift. "
    "arXiv:1810.11953",
    "Pettitt 1976, A two-sample Anderson-Darling rank statistic, Biometrika 63.",
    "Gretton et al. 2012, A kernel two-sample test, JMLR 13.",
    "Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests. arXiv:1610.06545",
    "Phipson & Smyth 2010, Permutation p-values should never be zero. arXiv:1603.05766",
    "Westfall & Young 1993, Resampling-based multiple testing.",
)


def drift_page(
    drift: Drift,
    surprising: Array | None = None,
    facts: Mapping[str, Cell] | None = None,
    *,
    provenance: Mapping[str, Cell] | None = None,
) -> Page:
    """The page of a drift test.

    Args:
        drift: of `analysis.drift_test`.
        surprising: the least likely new data in the order of `Drift.surprising`, ``(datum, *x_shape)``, to be shown.
        facts: about run and data, shown under the title.
        provenance: versions and settings, shown at the end.
    """
    shown: dict[str, Cell] = {
        **(facts or {}),
        "held-out data": f"{len(drift.log_px_reference):,}",
        "new data": f"{len(drift.log_px_new):,}",
        "observed as": drift.space,
        "draws for each datum": f"{drift.num_draws:,}",
        "relabellings": f"{drift.num_permutations:,}",
    }
    return Page(
        title="The data have changed" if drift.drifted else "No change of the data is detected",
        sections=[_test_section(drift), _latent_section(drift), _datum_section(drift, surprising)],
        facts=shown,
        provenance=provenance or {},
        subtitle="Drift test of new data against held-out data of a run",
    )


def _test_section(drift: Drift) -> Section:
    blocks: list[Block] = [Listing(str(drift)), *_tables(drift), _relabelled(drift)]
    if np.isfinite(drift.log_px_reference).all() and np.isfinite(drift.log_px_new).all():
        blocks.append(_log_px(drift))
    return Section(
        "Test of drift",
        blocks,
        verdicts=drift.verdicts,
        methods=flow(
            f"""
            Three statistics compare the samples: the Anderson-Darling statistic of log p(x), estimated by importance
            sampling with the guide as proposal; the squared maximum mean discrepancy of posterior means, with a
            Gaussian kernel of the median distance; and the area under the ROC curve of a shrunk linear discriminant of
            posterior means and their squares, on folds that it was not fitted to, refitted for every relabelling. All
            of them are computed for the same relabellings of the pooled data. Each p-value is therefore exact where new
            and held-out data are exchangeable, and so is the smallest of the three (minP): the false-alarm rate is
            {drift.alpha:g}. Held-out data are compared, not training data: these the model has seen, and finds likelier
            than new data of the same distribution.
            """
        ),
        references=_REFERENCES,
        metrics=drift.summary(),
        name="drift",
    )


def _tables(drift: Drift) -> list[Table]:
    shift, shift_se = drift.log_px_shift
    gap, classifier = drift.discrepancy, drift.classifier
    rows: list[list[Any]] = [
        [name, float(p), float(adjusted)]
        for name, p, adjusted in zip(NAMES, drift.p_values, drift.adjusted, strict=True)
    ]
    sizes: list[list[Any]] = [
        ["log p(x), new minus held-out, nats per datum", Estimate(shift, shift_se) if np.isfinite(shift) else None],
        ["P(of two, the new datum is the less likely one)", Estimate(*drift.less_likely)],
        ["MMD^2 of latents", Estimate(gap.value, gap.standard_error)],
        ["area under the ROC curve of the classifier", Estimate(classifier.auroc, classifier.auroc_se)],
    ]
    return [
        Table("p-values of equal distributions", ["statistic", "p", "p, adjusted for three"], rows, name="p-values"),
        Table("Effect sizes", ["quantity", "estimate"], sizes, name="sizes", keys=["figure", "estimate"]),
    ]


def _relabelled(drift: Drift) -> Picture:
    p_values = ", ".join(f"{p:.3g}" for p in drift.adjusted)
    return Picture.of(
        drift.plot(),
        alt=flow(
            f"""
            Histograms of three statistics over relabelled data with the value of the data as given; adjusted p-values
            {p_values}.
            """
        ),
        caption=flow(
            """
            Each statistic of these data (line) among those of data whose labels, new or held-out, were permuted at
            random. The p-values are adjusted for the three tests.
            """
        ),
        name="relabelled",
    )


def _log_px(drift: Drift) -> Picture:
    return Picture.of(
        plot_scores(
            -drift.log_px_reference, -drift.log_px_new, names=("held-out data", "new data"), xlabel="-log p(x), nats"
        ),
        alt=flow(
            f"""
            Histograms of -log p(x) of held-out and of new data; their means differ by {-drift.log_px_shift[0]:.2f}
            nats.
            """
        ),
        caption="-log p(x) of the data of both samples under the model.",
        name="log-px",
    )


def _latent_section(drift: Drift) -> Section:
    shift, spread = drift.latent_shift, drift.latent_spread
    moved = drift.moved
    order = np.argsort(drift.latent_adjusted, kind="stable")[:_MOST_ROWS]
    rows: list[list[Any]] = [
        [drift.latents[i], float(drift.latent_adjusted[i]), float(shift[i]), float(spread[i])] for i in order
    ]
    blocks: list[Block] = [
        flow(
            f"""
            {len(moved)} of {len(drift.latents)} latents moved at a family-wise error rate of {drift.alpha:g}.
            Each is tested by the Anderson-Darling statistic of its posterior means, adjusted by the largest among all
            latents in the same relabellings (maxT).
            """
        ),
        Table(
            "Latents, in order of significance",
            ["latent", "p, adjusted for all", "shift, sd", "spread, ratio"],
            rows,
            name="latents",
        ),
        Picture.of(
            plot_latent_drift(shift, spread, drift.latent_adjusted, drift.latents, alpha=drift.alpha),
            alt=f"Shift and spread of each latent; {len(moved)} moved.",
            caption=flow(
                """
                How far the mean of each latent moved, in standard deviations of the held-out data, and how much wider
                it became.
                """
            ),
            name="shifts",
        ),
    ]
    if len(moved):
        blocks.append(
            Picture.of(
                plot_latent_marginals(
                    drift.codes_reference[:, moved], drift.codes_new[:, moved], [drift.latents[i] for i in moved]
                ),
                alt=f"Histograms of {min(len(moved), 12)} latents that moved, in held-out and in new data.",
                caption="Posterior means of the latents that moved, in order of significance.",
                name="marginals",
            )
        )
    return Section("Latents that moved", blocks, name="latents")


def _datum_section(drift: Drift, surprising: Array | None) -> Section:
    rows: list[list[Any]] = [
        [str(int(drift.ids_new[i])), float(drift.log_px_new[i]), float(drift.strangeness[i])]
        for i in drift.surprising(_MOST_ROWS)
    ]
    expected = drift.alpha * len(drift.log_px_new)
    flagged = int((drift.strangeness <= drift.alpha).sum())
    by_chance = f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"
    blocks: list[Block] = [
        flow(
            f"""
            {flagged:,} of {len(drift.log_px_new):,} new data are less likely than all but {100 * drift.alpha:.3g}% of
            the held-out data; {by_chance} are expected without a change.
            """
        ),
        Table(
            "The least likely new data",
            ["id", "log p(x), nats", "p, conformal"],
            rows,
            name="surprising",
            note=flow(
                """
                The p-value is the share of held-out data that are as unlikely. It is of one datum: where there are
                many, some are small by chance.
                """
            ),
        ),
    ]
    if surprising is not None:
        blocks.append(
            Picture.of(
                plot_data(surprising, "the least likely new data, in order of log p(x)"),
                alt=f"The {len(surprising)} least likely new data.",
                caption="The least likely new data, in order of log p(x).",
                name="surprising-data",
            )
        )
    return Section("The most surprising data", blocks, name="surprising")
