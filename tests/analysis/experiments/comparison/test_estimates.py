"""Estimates of a variant over its seeds."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.page import experiment_page
from analysis.experiments.comparison.runs import Gaps
from analysis.experiments.comparison.tables import variant_rows
from tests.analysis.experiments.examples import three, variant


def test_estimates_of_variants_are_means_over_seeds_with_standard_errors() -> None:
    comparison = three()
    runs = {run.seed: run.held_out for run in variant("elbo", -90)}
    levels = np.array([run.log_px.mean() for run in runs.values()])
    row = next(row for row in variant_rows(comparison) if row["variant"] == "elbo")
    assert row["log_px"] == pytest.approx(levels.mean())
    assert row["log_px_se"] == pytest.approx(levels.std(ddof=1) / np.sqrt(3))
    assert (row["gap"], row["kl"]) == (pytest.approx(1.5), 5)
    assert (row["active_units"], row["active_units_se"], row["share_bad"], row["seconds"]) == (3, 0, 0, 12.5)
    assert 0.5 < row["cka"] < 1
    assert row["udr_se"] > 0
    difference = comparison.difference("iwae", "elbo").mean
    assert difference.estimate == pytest.approx(comparison.estimates.runs["log_px"][1].mean() - levels.mean())


def test_an_undefined_k_hat_of_few_effective_draws_is_bad_and_infinities_keep_their_sign() -> None:
    """An error of 0.2 is that of 24 effective draws of 500, and one of 0.01 that of 476."""
    k = np.full(200, -np.inf)
    k[:30] = np.nan
    k[30:50] = np.inf
    few = variant("a", -90, pareto_k=k, log_px_mcse=np.full(200, 0.2))
    comparison = compare_variants([*few, *variant("b", -89, rise=np.full(200, np.nan))])
    assert variant_rows(comparison)[1]["share_bad"] == 0.25
    many = compare_variants([*variant("a", -90, pareto_k=k), *variant("b", -89)])
    assert variant_rows(many)[1]["share_bad"] == pytest.approx(0.1)
    assert not any(verdict.name == "log_px_bias" for verdict in comparison.verdicts)
    experiment_page(comparison).render()


def test_gaps_come_from_their_diagnostic() -> None:
    class Found:
        def average(self, gap: str) -> tuple[float, float, float]:
            return {"approximation": (1.0, 0.1, 0.5), "amortization": (2.0, 0.2, 0.6)}[gap]

    assert Gaps.of(Found()) == Gaps(1.0, 0.1, 2.0, 0.2)  # type: ignore[arg-type]
    runs = variant("a", -90)
    half = [replace(runs[0], gaps=Gaps(1, 0, 1, 0)), *runs[1:]]
    assert "approximation" not in compare_variants(half).estimates.runs
