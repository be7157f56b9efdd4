"""A drift test as a page: whether data have changed, by what it is seen, which latents moved, and which data say so."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import plotting as plots
from analysis.monitoring.drift import Drift
from analysis.plotting.drift import plot_latent_drift, plot_latent_marginals, plot_relabelled
from analysis.results.estimate import Estimate
from analysis.results.page import Block, Cell, Listing, Page, Picture, Section, Table

type Array = np.ndarray[Any, Any]

_NAMES = ("log p(x)", "latents, MMD", "latents, classifier")
_MOST_ROWS = 20


def drift_page(
    drift: Drift,
    surprising: Array | None = None,
    facts: Mapping[str, Cell] | None = None,
    *,
    provenance: Mapping[str, Cell] | None = None,
) -> Page:
    """The page of a drift test.

    Args:
        drift: of `analysis.monitoring.drift.drift_test`.
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
        title="The data have changed" if drift.drifted else "No change of the data is seen",
        sections=[_test_section(drift), _latent_section(drift), _datum_section(drift, surprising)],
        facts=shown,
        provenance=provenance or {},
        subtitle="Drift test of new data against held-out data of a run",
    )


def _test_section(drift: Drift) -> Section:
    shift, shift_se = drift.log_px_shift
    less, less_se = drift.less_likely
    rows: list[list[Any]] = [
        [name, float(p), float(adjusted)]
        for name, p, adjusted in zip(_NAMES, drift.p_values, drift.adjusted, strict=True)
    ]
    sizes: list[list[Any]] = [
        ["log p(x), new less held-out, nats per datum", Estimate(shift, shift_se) if np.isfinite(shift) else None],
        ["P(of two, the new datum is the less likely one)", Estimate(less, less_se)],
        ["MMD^2 of latents", Estimate(drift.discrepancy.value, drift.discrepancy.standard_error)],
        ["area under the ROC curve of the classifier", Estimate(drift.classifier.auroc, drift.classifier.auroc_se)],
    ]
    blocks: list[Block] = [
        Listing(str(drift)),
        Table("p-values of equal distributions", ["statistic", "p", "p, adjusted for three"], rows, name="p-values"),
        Table("How large the differences are", ["figure", "estimate"], sizes, name="sizes"),
        Picture.of(
            plot_relabelled(drift.statistics, _NAMES, drift.adjusted, level=drift.level),
            alt="Histograms of three statistics over relabelled data with the value of the data as given; adjusted "
            "p-values " + ", ".join(f"{p:.3g}" for p in drift.adjusted) + ".",
            caption="Each statistic of these data (line) among those of data whose labels, new or held-out, were dealt "
            "out at random. The p-values are adjusted for there being three.",
            name="relabelled",
        ),
    ]
    finite = np.isfinite(drift.log_px_reference).all() and np.isfinite(drift.log_px_new).all()
    if finite:
        blocks.append(
            Picture.of(
                plots.plot_scores(
                    -drift.log_px_reference,
                    -drift.log_px_new,
                    names=("held-out data", "new data"),
                    xlabel="-log p(x), nats",
                ),
                alt=f"Histograms of -log p(x) of held-out and of new data; their means differ by {-shift:.2f} nats.",
                caption="How improbable the model finds the data of both samples.",
                name="log-px",
            )
        )
    return Section(
        "Have the data changed?",
        blocks,
        verdicts=drift.verdicts,
        methods="Three statistics compare the samples: the Anderson-Darling statistic of log p(x), estimated by "
        "importance sampling with the guide as proposal; the squared maximum mean discrepancy of posterior means, with "
        "a Gaussian kernel of the median distance; and the area under the ROC curve of a shrunk linear discriminant of "
        "posterior means and their squares, on folds that it was not fitted to, refitted for every relabelling. All of "
        "them are computed for the same relabellings of the pooled data. So each p-value is exact where new and "
        f"held-out data are exchangeable, and the smallest of the three as well (minP): the false-alarm rate is "
        f"{drift.level:g}. Held-out data are compared, not training data: these the model has seen, and finds likelier "
        "than new data of the same distribution.",
        references=[
            "Rabanser, Günnemann & Lipton 2019, Failing loudly: an empirical study of methods for detecting dataset "
            "shift. arXiv:1810.11953",
            "Pettitt 1976, A two-sample Anderson-Darling rank statistic, Biometrika 63.",
            "Gretton et al. 2012, A kernel two-sample test, JMLR 13.",
            "Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests. arXiv:1610.06545",
            "Phipson & Smyth 2010, Permutation p-values should never be zero. arXiv:1603.05766",
            "Westfall & Young 1993, Resampling-based multiple testing.",
        ],
        figures=drift.summary(),
        name="drift",
    )


def _latent_section(drift: Drift) -> Section:
    shift, spread = drift.latent_shift, drift.latent_spread
    moved = drift.moved
    order = np.argsort(drift.latent_adjusted, kind="stable")[:_MOST_ROWS]
    rows: list[list[Any]] = [
        [drift.latents[i], float(drift.latent_adjusted[i]), float(shift[i]), float(spread[i])] for i in order
    ]
    blocks: list[Block] = [
        f"{len(moved)} of {len(drift.latents)} latents moved at a level of {drift.level:g} for all of them together. "
        "Each is judged by the Anderson-Darling statistic of its posterior means, adjusted by the largest among all "
        "latents in the same relabellings (maxT).",
        Table(
            "Latents, the clearest first",
            ["latent", "p, adjusted for all", "shift, sd", "spread, ratio"],
            rows,
            name="latents",
        ),
        Picture.of(
            plot_latent_drift(shift, spread, drift.latent_adjusted, drift.latents, level=drift.level),
            alt=f"Shift and spread of each latent; {len(moved)} moved.",
            caption="How far the mean of each latent moved, in standard deviations of the held-out data, and how much "
            "wider it became.",
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
                caption="Posterior means of the latents that moved, the clearest first.",
                name="marginals",
            )
        )
    return Section("Which latents moved?", blocks, name="latents")


def _datum_section(drift: Drift, surprising: Array | None) -> Section:
    rows: list[list[Any]] = [
        [str(int(drift.ids_new[i])), float(drift.log_px_new[i]), float(drift.strangeness[i])]
        for i in drift.surprising(_MOST_ROWS)
    ]
    expected = drift.level * len(drift.log_px_new)
    flagged = int((drift.strangeness <= drift.level).sum())
    by_chance = f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"
    blocks: list[Block] = [
        f"{flagged:,} of {len(drift.log_px_new):,} new data are less likely than all but {100 * drift.level:.3g}% "
        f"of the held-out data; {by_chance} would be without a change.",
        Table(
            "The least likely new data",
            ["id", "log p(x), nats", "p, conformal"],
            rows,
            name="surprising",
            note="The p-value is the share of held-out data that are as unlikely. It is of one datum: where there are "
            "many, some are small by chance.",
        ),
    ]
    if surprising is not None:
        blocks.append(
            Picture.of(
                plots.plot_data(surprising, "the least likely new data, the least likely first"),
                alt=f"The {len(surprising)} least likely new data.",
                caption="The least likely new data, the least likely first.",
                name="surprising-data",
            )
        )
    return Section("Which data are the most surprising?", blocks, name="surprising")
