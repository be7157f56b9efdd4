"""Tables, summaries and prints of the results of experiments say the same; their contract is that of every result."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.experiments import examples
from tests.analysis.experiments.examples import held_out, three


@pytest.mark.parametrize(
    ("name", "num_rows"),
    [("experiment_comparison", 3), ("held_out_run", 80), ("rate_distortion_curve", 4), ("search_analysis", 40)],
)
def test_a_table_has_a_row_for_each_estimate_and_a_summary_no_nan(name: str, num_rows: int) -> None:
    result = getattr(examples, name)()
    assert len(result.to_dataframe()) == num_rows
    assert json.loads(json.dumps(result.summary(), allow_nan=False))
    assert result.verdicts
    assert "<0>" not in result._repr_html_()  # labels are escaped


def test_tables_are_those_of_the_summary() -> None:
    rows = {row["variant"]: row for row in three().summary()["variants"]}
    frame = three().to_dataframe()
    assert {label: frame.loc[label, "log_px"] for label in frame.index} == {
        label: row["log_px"] for label, row in rows.items()
    }
    found = examples.rate_distortion_curve()
    np.testing.assert_array_equal(found.to_dataframe()["rate"], found.rate)
    (beaten,) = found.summary()["beaten"]
    assert (beaten["label"], beaten["significant"]) == ("beta=1 <1>", True)
    result = held_out(np.arange(10.0))
    assert result.to_dataframe()["log_px"].tolist() == list(range(10))
    assert set(result.to_xarray().sizes) == {"datum", "latent"}
    assert result.summary()["kl"] == 5


def test_a_search_prints_its_best_trials() -> None:
    search = examples.search_analysis().search
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
    assert search._repr_html_().count("<tr") < 25
