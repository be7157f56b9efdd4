"""Which runs are compared with which, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.page import experiment_page
from analysis.experiments.comparison.result import ExperimentComparison
from analysis.experiments.comparison.runs import MeasuredRun
from analysis.experiments.comparison.tables import variant_rows
from tests.analysis.experiments.examples import held_out, variant


def test_seeds_are_paired_by_number_and_what_has_no_partner_is_left_out_with_a_word() -> None:
    whole = compare_variants([*variant("a", -90, [3, 1, 2]), *variant("b", -89, [1, 2, 3])])
    assert whole.estimates.seeds.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert whole.notes == ()
    some = compare_variants([*variant("a", -90, [1, 2, 3, 4]), *variant("b", -89, [0, 1, 2])])
    assert some.estimates.seeds.tolist() == [[1, 2], [1, 2]]
    assert some.notes == (
        "Runs left out, since only seeds 1, 2 are shared by all: a: seeds 3, 4; b: seed 0. Fit the missing seeds to "
        "use them.",
    )
    assert some.notes[0][:40] in str(some)
    for name in ("a", "b"):
        row = next(row for row in variant_rows(some) if row["variant"] == name)
        level = np.mean([run.held_out.log_px.mean() for run in variant(name, -90 if name == "a" else -89, [1, 2])])
        assert row["log_px"] == pytest.approx(level)
    apart = compare_variants([*variant("a", -90, [0, 1, 2]), *variant("b", -89, [10, 11])])
    assert apart.estimates.seeds.tolist() == [[10, 11], [0, 1]]
    assert (
        "No seed is shared by all variants: fits are independent and paired in the order of their seeds"
        in apart.notes[0]
    )
    assert "since every variant keeps 2: a: seed 2." in apart.notes[1]


def grid_runs() -> list[MeasuredRun]:
    return [
        run
        for objective, level in (("elbo", -90.0), ("iwae", -89.0))
        for beta in (1, 2)
        for run in variant(f"{objective} beta={beta}", level - beta, objective=objective, grid={"beta": beta})
    ]


def test_a_variant_is_compared_with_the_baseline_of_the_same_grid_value() -> None:
    def references(comparison: ExperimentComparison) -> dict[str, str | None]:
        return dict(zip(comparison.labels, comparison.references, strict=True))

    same = {"elbo beta=1": None, "elbo beta=2": None, "iwae beta=1": "elbo beta=1", "iwae beta=2": "elbo beta=2"}
    for baseline in (None, "elbo", "elbo beta=2"):
        assert references(compare_variants(grid_runs(), baseline=baseline)) == same
    turned = references(compare_variants(grid_runs(), baseline="iwae"))
    assert turned == {
        "elbo beta=1": "iwae beta=1",
        "elbo beta=2": "iwae beta=2",
        "iwae beta=1": None,
        "iwae beta=2": None,
    }
    alone = [run for run in grid_runs() if run.objective == "elbo"]
    assert references(compare_variants(alone)) == {"elbo beta=1": None, "elbo beta=2": "elbo beta=1"}
    extra = [*grid_runs(), *variant("stl", -91, objective="stl")]  # which has no grid value
    assert references(compare_variants(extra))["stl"] == "elbo beta=1"
    twice = compare_variants([*variant("elbo", -90, objective="elbo"), *variant("elbo again", -90, objective="elbo")])
    assert set(twice.references) - {None} == {"elbo"} or set(twice.references) - {None} == {"elbo again"}


def test_one_variant_alone_is_described() -> None:
    comparison = compare_variants(variant("elbo", -90))
    assert "elbo is the only variant; its mean log p(x) is" in comparison.headline
    assert comparison.pairs == comparison.differences == ()
    assert len(str(comparison).splitlines()) == 4
    assert "differences" not in comparison.to_xarray().children
    assert [section.key for section in experiment_page(comparison).sections] == ["winner", "trust", "agreement", "runs"]


def test_what_makes_no_sense_is_refused() -> None:
    runs, other = variant("a", -90), variant("b", -89)

    def changed(**changes: Any) -> list[MeasuredRun]:
        return [*runs, *other[:2], replace(other[2], held_out=replace(other[2].held_out, **changes))]

    log_px = other[2].held_out.log_px.copy()
    log_px[[5, 9]] = -np.inf
    elbo = other[2].held_out.elbo.copy()
    elbo[4] = np.nan
    few = [replace(run, held_out=held_out(np.array([-90.0]))) for run in [*runs, *other]]
    cases: list[tuple[list[MeasuredRun], str]] = [
        ([], "no run was measured"),
        ([*runs, *other, runs[0]], "'a' has seed 0 twice"),
        ([*runs, replace(runs[0], seed=9, objective="b")], "the label 'a' names two variants, a {} and b {}"),
        ([*runs, replace(runs[0], seed=9, grid={"beta": 2})], "names two variants, a {} and a {'beta': 2}"),
        (changed(space="stored values / 16"), r"'a' \(seed 0\) and 'b' \(seed 2\) are of different observation spaces"),
        (changed(measure="density"), r"p\(x\) is a probability in one and a density in the other"),
        (changed(ids=np.arange(1, 201)), "are of different data: 200 with ids 0, 1, 2"),
        (changed(fingerprint="0" * 64), "have other values under the same ids"),
        (changed(num_draws=100), "have 500 and 100 draws"),
        (changed(log_px=log_px), "log_px of 'b', seed 2, is -inf for 2 of 200 data, the first with id 5"),
        (changed(elbo=elbo), "elbo of 'b', seed 2, is nan for 1 of 200 data, the first with id 4"),
        (few, "one datum shows no spread"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message.replace("{}", r"\{\}").replace("{'beta': 2}", r"\{'beta': 2\}")):
            compare_variants(given)
    with pytest.raises(ValueError, match="the baseline 'c' is not a variant or objective; choose from a, b"):
        compare_variants([*runs, *other], baseline="c")
