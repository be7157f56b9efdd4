"""Predictive checks in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.diagnostics.context import PREDICTIVE_TREE, TREE, Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic, Reducers
from analysis.plotting.ecdf import plot_ecdf_difference
from analysis.predictive.checking import predictive_checks
from analysis.predictive.checks import PredictiveChecks
from analysis.predictive.plot import plot_reconstruction
from analysis.results.blocks import Block, Heading, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.result import Findings
from analysis.results.text import flow
from analysis.stats.ecdf_bands import ecdf_band

type Array = np.ndarray[Any, Any]

_SHOWN = 8
_METHODS = """
    A data set is replicated as often as there are draws, and statistics of data and replications are compared.
    Posterior predictive replications take the latents from the guide at the same data, and use the data twice: their
    p-values are conservative. Prior predictive samples take new latents from the prior. Columns of different units are
    compared one by one, by their mean, standard deviation and distribution over data; p-values are adjusted for all.
"""
_REFERENCES = (
    "Gelman, Meng & Stern 1996, Posterior predictive assessment of model fitness via realized discrepancies, "
    "Statistica Sinica 6.",
    "Säilynoja, Bürkner & Vehtari 2022, Graphical test for discrete uniformity. arXiv:2103.10522",
)


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveFindings(Findings):
    """Predictive checks by both kinds of replications.

    Attributes:
        posterior: with latents from the guide at the same data.
        held_out: with latents from the prior.
        num_data: data that were checked.
        reconstruction: some data, and mean and standard deviation of their posterior predictive, of one shape.
    """

    posterior: PredictiveChecks
    held_out: PredictiveChecks
    num_data: int
    reconstruction: tuple[Array, Array, Array] | None = None

    @property
    def parts(self) -> Mapping[str, PredictiveChecks]:
        return {"posterior": self.posterior, "held_out": self.held_out}


@DIAGNOSTICS.add
class Predictive(Diagnostic[PredictiveFindings]):
    """Statistics of the data among those of replicated data sets."""

    name, title, order = "predictive", "Predictive checks", 30
    needs = ("draws",)
    question = "Do data drawn from the model look like the data?"

    def reducers(self, context: Context) -> Reducers:
        return {TREE: context.tree_reducer} if context.few else {PREDICTIVE_TREE: context.predictive_reducer}

    def run(self, context: Context) -> PredictiveFindings:
        tree = context.collected(TREE if context.few else PREDICTIVE_TREE)
        posterior = predictive_checks(tree, kind="posterior", seed=context.stream(2))
        held_out = predictive_checks(tree, kind="held_out", seed=context.stream(3))
        shown = None
        if "posterior_predictive_summary" in tree:
            summary = tree["posterior_predictive_summary"]
            observed = tree["observed_data"]["x"].values[:_SHOWN]
            shown = (observed, summary["mean"].values[:_SHOWN], summary["sd"].values[:_SHOWN])
        return PredictiveFindings(posterior, held_out, tree["observed_data"].sizes["datum"], shown)

    def section(self, result: PredictiveFindings) -> Section:
        blocks: list[Block] = [f"Checked on {result.num_data:,} held-out data."]
        for checks in result.parts.values():
            blocks += _blocks(checks)
        if result.reconstruction is not None:
            blocks += _reconstructions(*result.reconstruction)
        return Section(
            self.title,
            blocks,
            verdicts=result.verdicts,
            methods=flow(_METHODS),
            references=_REFERENCES,
            name=self.name,
        )


def _blocks(group: PredictiveChecks) -> list[Block]:
    first = group.checks[0]
    rows = [
        [check.name, check.observed, Estimate(float(check.replicated.mean()), float(check.replicated.std())),
         Estimate(check.p_value, check.p_value_mcse), float(adjusted), check.effect]
        for check, adjusted in zip(group.checks, group.adjusted, strict=True)
    ]  # fmt: skip
    note = f"{len(first.replicated):,} replicated data sets; p is the share of them at least as large as the data. "
    off = [check.name for check, p in zip(group.checks, group.adjusted, strict=True) if p < 0.05]
    outside = f"the data lie outside for {', '.join(off)}" if off else "no value is beyond chance"
    blocks: list[Block] = [
        Heading("Posterior predictive replications" if first.kind == "posterior" else "Prior predictive samples"),
        first.meaning,
        Table(
            f"Statistics of data and replications ({first.kind})",
            ["statistic", "data", "replications ± sd", "p", "p, all statistics", "difference, sd over data"],
            rows,
            note + first.note,
            name=f"statistics-{first.kind}",
        ),
        Picture.of(
            group.plot(),
            alt=flow(
                f"""
                Histograms of {len(group.checks)} statistics over replicated data sets with the data's own value;
                {outside}.
                """
            ),
            caption="Each statistic in replicated data sets (histogram) and in the data (line).",
            name=f"replications-{first.kind}",
        ),
    ]
    return blocks if first.kind == "posterior" else blocks + _pits(group)


def _pits(group: PredictiveChecks) -> list[Block]:
    known = [check for check in group.checks if check.pit is not None and len(check.pit) > 1]
    if not known:
        return []
    furthest = sorted(known, key=lambda check: check.pit_distance or 0.0, reverse=True)[:_SHOWN]
    known = [check for check in known if check in furthest]
    least = min(len(check.pit) for check in known if check.pit is not None)  # where data are missing, ranks are fewer
    band = ecdf_band(least)
    curves = np.stack([band.ecdf(check.pit[:least]) for check in known if check.pit is not None], axis=1)
    return [
        Picture.of(
            plot_ecdf_difference(band.grid, curves, band.lower, band.upper, [check.name for check in known]),
            alt="ECDF of the PIT of each statistic minus uniform, with a simultaneous 95 % band.",
            caption=flow(
                """
                Rank of each datum's statistic among its replications: ECDF minus uniform, with the band that a true
                model leaves in one case of twenty for each statistic.
                """
            ),
            name=f"pit-{group.checks[0].kind}",
        )
    ]


def _reconstructions(x: Array, mean: Array, sd: Array) -> list[Block]:
    return [
        Heading("Reconstructions"),
        Picture.of(
            plot_reconstruction(x, mean, sd),
            alt=flow(
                f"""
                {min(len(x), _SHOWN)} held-out data, the mean of their posterior predictive, and its standard deviation.
                """
            ),
            caption="Held-out data, mean and standard deviation of the posterior predictive of each element.",
            name="reconstructions",
        ),
    ]
