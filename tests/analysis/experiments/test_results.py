"""The contract of results: verdicts, JSON-able summary, table, figure, and prints that fit a screen."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.experiments.rate_distortion.points import RatePoint
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.experiments.search.result import SearchAnalysis, importances
from analysis.results.verdict import Verdict
from analysis.stats.selection import selection_optimism
from tests.analysis.experiments.test_comparison import held_out, three
from tests.analysis.experiments.test_search_page import SPACE_BY_HAND, by_hand
from vae_pyro.evaluation.evaluation import Evaluation

RESULTS = ("comparison", "held out", "rate and distortion", "search")


def curve() -> RateDistortion:
    """Of four fits, one of which another one dominates."""
    random, none = np.random.default_rng(0), np.zeros(50)
    points = [
        RatePoint(
            f"beta={beta:g} <{number}>", beta, rate + random.normal(size=50), none, d + random.normal(size=50), none
        )
        for number, (beta, rate, d) in enumerate(
            [(1.0, 5.0, 10.0), (1.0, 9.0, 30.0), (2.0, 3.0, 13.0), (4.0, 1.0, 20.0)]
        )
    ]
    return RateDistortion.of(points, 30, entropy=2.0)


def searched() -> SearchAnalysis:
    """Of a search over three settings."""
    search = by_hand(lambda latent_dim, lr, beta: None if lr > 0.9 else 4 * lr + beta, SPACE_BY_HAND)
    per_datum = np.random.default_rng(1).normal(size=(20, 60))
    ones = {name: np.ones(60) for name in Evaluation.__dataclass_fields__ if name not in ("num_draws", "discrete")}
    validation = Evaluation(**ones, num_draws=10)
    optimism = selection_optimism(per_datum, num_bootstrap=100)
    return SearchAnalysis(search, optimism, validation, ("optimizer.lr upwards",), importances(search))


def made(name: str) -> Any:
    if name == "comparison":
        return three()
    if name == "held out":
        return held_out(np.random.default_rng(0).normal(-90, 5, size=80))
    return curve() if name == "rate and distortion" else searched()


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_has_verdicts_numbers_a_table_a_figure_and_prints(name: str) -> None:
    result = made(name)
    assert result.verdicts
    assert all(isinstance(verdict, Verdict) for verdict in result.verdicts)
    assert json.loads(json.dumps(result.summary(), allow_nan=False))
    frame = result.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == {"comparison": 3, "held out": 80, "rate and distortion": 4, "search": 40}[name]
    assert isinstance(result.plot(), Figure)
    lines = str(result).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
    assert len(repr(result)) <= 200
    assert "\n" not in repr(result)
    html = result._repr_html_()
    assert html.count("<table") == html.count("</table>") == 1
    assert "<0>" not in html  # labels are escaped


def test_tables_are_those_of_the_summary() -> None:
    rows = {row["variant"]: row for row in three().summary()["variants"]}
    frame = three().to_dataframe()
    assert {label: frame.loc[label, "log_px"] for label in frame.index} == {
        label: row["log_px"] for label, row in rows.items()
    }
    found = curve()
    np.testing.assert_array_equal(found.to_dataframe()["rate"], found.rate)
    (beaten,) = found.summary()["beaten"]
    assert (beaten["label"], beaten["significant"]) == ("beta=1 <1>", True)
    result = held_out(np.arange(10.0))
    assert result.to_dataframe()["log_px"].tolist() == list(range(10))
    assert set(result.to_xarray().sizes) == {"datum", "latent"}
    assert result.summary()["kl"] == 5


def test_a_search_prints_its_best_trials() -> None:
    search = searched().search
    lines = str(search).splitlines()
    assert len(lines) == 23
    assert "the 20 best of 40 trials" in lines[-2]
    shown = {int(line.split()[0]) for line in lines[1:-2]}
    best = sorted((trial for trial in search.trials if trial.value is not None), key=lambda trial: -trial.value)[:20]
    assert shown == {trial.number for trial in best}
    wide = replace(
        search, trials=tuple(replace(t, params={**t.params, "latent_dim": "x" * 200}) for t in search.trials)
    )
    assert max(map(len, str(wide).splitlines())) == 120
    assert len(repr(search)) < 200
