"""Held-out log p(x) in the report."""

from typing import Any

import numpy as np

from analysis.density.elpd import elpd
from analysis.density.plot import plot_khat
from analysis.density.result import ELPD
from analysis.diagnostics.context import TREE, Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic, Reducers
from analysis.results.blocks import Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.result import finite_or_none
from analysis.results.text import flow
from vae_pyro.core.means import standard_error

type Array = np.ndarray[Any, Any]

_METHODS = """
    log p(x) is estimated for each datum by importance sampling with the guide as proposal. With point estimates of the
    decoder's weights there is no posterior over parameters, so PSIS-LOO of log p(x | z) would be a harmonic-mean
    estimate of log p(x); the criterion here is log p(x) itself, on held-out data.
"""
_REFERENCES = (
    "Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders. arXiv:1509.00519",
    "Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646",
    "Dieng et al. 2017, Variational inference via chi upper bound minimization. arXiv:1611.00328",
)


@DIAGNOSTICS.add
class Density(Diagnostic[ELPD]):
    """Held-out log p(x), its bounds from both sides, and k-hat."""

    name, title, order = "density", "Held-out log predictive density", 20
    question = "How probable are held-out data?"

    def reducers(self, context: Context) -> Reducers:
        return {TREE: context.tree_reducer}

    def run(self, context: Context) -> ELPD:
        return elpd(context.collected(TREE))

    def section(self, result: ELPD) -> Section:
        return Section(
            self.title,
            [Listing(str(result)), _averages(result), _tail_indices(result)],
            verdicts=result.verdicts,
            methods=flow(_METHODS),
            references=_REFERENCES,
            name=self.name,
        )


def _averages(result: ELPD) -> Table:
    n, mean = len(result), result.elpd / len(result)
    bits = Estimate(-mean / np.log(2), result.mcse / n / np.log(2))
    rows: list[list[Any]] = [
        [
            "log p(x), importance sampling",
            Estimate(mean, result.mcse / n),
            finite_or_none(standard_error(result.pointwise)),
        ],
        ["ELBO, lower bound", float(result.elbo.mean()), finite_or_none(standard_error(result.elbo))],
        [
            "CUBO, upper bound in the limit of many draws",
            float(result.upper.mean()),
            finite_or_none(standard_error(result.upper)),
        ],
        ["bits per datum, -log p(x) / log 2", bits, None],
    ]
    return Table(
        f"Averages over {n:,} held-out data, nats per datum",
        ["quantity", "estimate ± Monte Carlo", "± another test set"],
        rows,
        note=flow(
            f"""
            {result.num_draws:,} draws of the guide for each datum. Estimates with other numbers of draws are not
            comparable.
            """
        ),
        name="density",
        keys=["figure", "estimate ± Monte Carlo", "± another test set"],
    )


def _tail_indices(result: ELPD) -> Picture:
    n, k = len(result), result.pareto_k[np.isfinite(result.pareto_k)]
    spread = f"; median {np.median(k):.2f}, largest {k.max():.2f}." if len(k) else "; all weights are equal."
    return Picture.of(
        plot_khat(result.pareto_k, result.good_k),
        alt=flow(
            f"""
            Tail index k-hat of the importance weights of {n:,} data: {result.num_bad:,} are above
            {result.good_k:.2f}{spread}
            """
        ),
        caption=flow(
            """
            Tail index of each datum's importance weights. Above the dashed line the estimate of log p(x) is too low by
            an unknown amount; above 1 the weights have no mean.
            """
        ),
        metrics={"above": result.num_bad, "of": n, "median": float(np.median(k)) if len(k) else None},
        name="k-hat",
    )
