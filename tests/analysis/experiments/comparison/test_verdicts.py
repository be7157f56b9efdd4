"""What a comparison concludes, and the advice that it gives."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import nct, t

from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.page import experiment_page
from analysis.experiments.comparison.tables import variant_rows
from analysis.experiments.comparison.verdicts import advice, not_significant
from analysis.results.estimate import DASH
from analysis.stats.power import power_analysis
from tests.analysis.experiments.examples import held_out, three, variant


def test_a_difference_that_is_not_significant_is_reported_with_its_source_and_advice() -> None:
    comparison = three()
    assert comparison.winner == "dreg"
    assert [pair.second for pair in not_significant(comparison)] == ["iwae"]
    assert (
        "significantly higher than that of elbo; its difference from iwae is not significant. The next variant, iwae, "
        "is lower by"
    ) in comparison.headline
    assert comparison.verdicts[0].outcome == "warn"
    few_seeds = compare_variants([*variant("a", -90, of_seed=1), *variant("b", -88.5, of_seed=1)])
    said = advice(few_seeds.pairs[0], 1)
    assert "most of the variance of the difference comes from seeds" in said
    assert "more data alone do not suffice" in said
    seeds = int(said.split("about ")[1].split()[0])
    assert 3 < seeds < 100
    # One difference of every seed, which wanders over few data.
    rough = variant("a", -90, range(8), n=20, of_seed=0, of_both=0.01)
    slope = np.random.default_rng(3).normal(size=20)
    slope += 0.4 - slope.mean()  # about 2 standard errors
    other = [replace(run, label="b", held_out=held_out(run.held_out.log_px + slope)) for run in rough]
    of_data = compare_variants([*rough, *other, *variant("far", -99, range(8), n=20)])
    pair = of_data.difference("b", "a")
    assert not pair.significant
    said = advice(pair, len(of_data.pairs))
    assert "most of the variance of the difference comes from test data (seeds 0%, test data 100%" in said
    assert "data (now 20), more seeds alone do not suffice" in said


@pytest.mark.parametrize(("size", "num_comparisons"), [(0.3, 1), (0.4, 1), (0.5, 1), (0.5, 6), (0.7, 3)])
def test_what_is_advised_finds_the_difference_in_four_of_five_experiments(size: float, num_comparisons: int) -> None:
    """The power of the t test at the advised number is closed, a noncentral t: 0.8, and one fewer falls short of it."""
    level, spread = 0.05 / num_comparisons, 0.42
    (pair,) = compare_variants([*variant("a", -90), *variant("b", -89.5)]).pairs
    for what, part, now in (("seeds", "se_seeds", 3), ("data", "se_data", 200)):
        scale = spread if what == "seeds" else 10 * size  # not found as it stands
        nothing = {"se_seeds": 0.0, "se_data": 0.0, "se_interaction": 0.0}
        planned = replace(pair.mean, estimate=size, se=scale / np.sqrt(now), **{**nothing, part: scale / np.sqrt(now)})
        found = power_analysis(planned, num_comparisons=num_comparisons)
        number, other = (found.num_seeds, found.num_data) if what == "seeds" else (found.num_data, found.num_seeds)
        assert other is None
        assert number is not None
        assert max(found.variance_shares, key=found.variance_shares.__getitem__) == what
        said = advice(replace(pair, mean=planned), num_comparisons)
        assert (
            f"about {number:,} {what} (now {now}), more {'data' if what == 'seeds' else 'seeds'} alone do not" in said
        )
        fewer, power = (
            float(nct.sf(t.isf(level / 2, count - 1), count - 1, size / scale * np.sqrt(count)))
            for count in (number - 1, number)
        )
        assert 0.78 < power < 0.9
        assert fewer < 0.8
    assert "would detect a difference above" in advice(replace(pair, mean=replace(planned, estimate=0.01)), 1)
    assert advice(replace(pair, mean=replace(planned, se=0.0)), 1) == "the two predict exactly alike on these data"


def test_one_seed_speaks_of_fits_and_has_no_standard_error() -> None:
    comparison = compare_variants([*variant("elbo", -90, [7]), *variant("stl", -89.9, [7]), *variant("x", -95, [7])])
    assert all(np.isnan(comparison.estimates.mean(name)[1]).all() for name in comparison.estimates.runs)
    assert "With one seed, the result refers to these 3 fits and not to their objectives" in comparison.headline
    assert "predicts held-out data best" not in comparison.headline
    assert f" ± {DASH}" in str(comparison)
    seeds = next(verdict for verdict in comparison.verdicts if verdict.name == "num_seeds")
    assert seeds.outcome == "warn"
    assert comparison.estimates.agreements == (None, None, None)
    assert variant_rows(comparison)[0]["log_px_se"] is None
    json.dumps(comparison.summary(), allow_nan=False)
    same = compare_variants([*variant("elbo", -90, [7], of_both=9), *variant("stl", -90, [7], of_both=9)])
    assert not same.pairs[0].significant
    said = advice(same.pairs[0], 1)
    assert said.startswith("one seed shows no spread over seeds, and the number required is unknown")
    assert said in same.verdicts[0].advice
    assert "the variation over seeds is part of none of the errors" in experiment_page(same).render()


@pytest.mark.parametrize("bounded", [False, True])
def test_a_ranking_of_guides_is_not_called_one_of_models(bounded: bool) -> None:
    """Too large a k-hat behind the loser leaves the order open, unless its CUBO lies below the winner."""
    runs = variant("good", -88)
    uneven = {"pareto_k": np.full(200, 0.9), "log_px_mcse": np.full(200, 0.05)}  # 222 effective draws of 500
    bad = variant("bad", -90, **uneven)
    bad = [
        replace(run, held_out=replace(run.held_out, upper=run.held_out.log_px + (0.5 if bounded else 1.9)))
        for run in bad
    ]
    if not bounded:
        bad = [replace(run, held_out=replace(run.held_out, upper=run.held_out.log_px + 2.9)) for run in bad]
    comparison = compare_variants([*runs, *bad])
    assert comparison.estimates.lower_bounds == ("bad",)
    assert comparison.pairs[0].significant
    assert comparison.pairs[0].settled is bounded
    assert comparison.verdicts[0].outcome == ("pass" if bounded else "warn")
    assert next(v for v in comparison.verdicts if v.name == "pareto_k").outcome == "warn"
    if bounded:
        assert "good predicts held-out data best" in comparison.headline
        assert "log p(x) of bad is a lower bound" in comparison.headline
    else:
        assert (
            "has the highest lower bound on log p(x), which does not show that its model is best" in comparison.headline
        )
        assert "one of guides rather than of models" in comparison.headline
    winner = compare_variants([*variant("good", -90), *variant("bad", -88, **uneven)])
    assert winner.pairs[0].settled  # the best can only rise
