"""Facts of data: typed, written as before, and read from files of earlier versions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vae_pyro import RunFolder, load_data
from vae_pyro.core.files import RunError
from vae_pyro.data.facts import DataFacts, Replay
from vae_pyro.data.observation import Space, SpaceKind

# As earlier versions wrote it.
WRITTEN: dict[str, Any] = {
    "name": "digits",
    "kind": "image",
    "x_shape": [1, 8, 8],
    "sizes": {"train": 1294, "validation": 144, "test": 359},
    "range": [0.0, 1.0],
    "integral": False,
    "space": "stored values / 16",
    "evaluation": "no random element",
    "labels": True,
    "top": 16.0,
}


def test_what_is_written_is_what_earlier_versions_wrote() -> None:
    facts = load_data("digits").facts
    written = json.loads(json.dumps(facts.to_json()))
    assert written == {**WRITTEN, "fingerprint": facts.fingerprint}
    assert len(facts.fingerprint) == 64
    assert DataFacts.from_json(written) == facts
    replayed = replace(facts, replay=Replay(0.25, {"train": 12, "validation": 3}, "ab"))
    assert replayed.to_json()["replay"] == {"share": 0.25, "draws": {"train": 12, "validation": 3}, "fingerprint": "ab"}
    assert DataFacts.from_json(replayed.to_json()) == replayed


def test_a_table_keeps_its_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": np.linspace(0, 1, 40), "kind": ["a", "b", "c", "d"] * 10, "id": range(40)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    facts = load_data(tmp_path / "t.csv", kinds={}).facts
    written = json.loads(json.dumps(facts.to_json()))
    assert written["columns"] == ["size", "kind"]
    assert written["columns_left_out"] == ["id"]
    assert written["schema"]["columns"][1]["categories"] == ["a", "b", "c", "d"]
    assert written["schema"]["columns"][0]["dtype"] == "float64"  # defaults are written, too
    again = DataFacts.from_json(written)
    assert again == facts
    assert again.schema is not None
    assert again.space == again.schema.space
    assert "left out  'id'" in str(facts)


def test_facts_of_arrays_and_of_later_versions_are_read() -> None:
    assert DataFacts.from_json({"fingerprint": "12"}) == DataFacts(fingerprint="12")
    assert DataFacts(fingerprint="12").to_json() == {"fingerprint": "12"}
    read = DataFacts.from_json({**WRITTEN, "fingerprint": "", "something_new": [1, 2]})
    assert read.space is not None
    assert (read.space.kind, read.top, read.streamed) == (SpaceKind.SCALED, 16.0, False)
    assert str(DataFacts()) == "data given as arrays"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sizes": [1, 2]}, "facts of data: sizes: .* got \\[1, 2\\]"),
        ({"missing": 2.0}, "missing: .* got 2.0"),
        ({"replay": {"share": 0.5}}, "replay.draws"),
        (["digits"], "facts of data are a JSON object, got"),
    ],
)
def test_facts_that_are_none_are_refused(wrong: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DataFacts.from_json(wrong)
    folder = RunFolder(tmp_path / "run")
    folder.begin({"model": {}, "fit": {}, "data": {}, "seed": 0, "facts": wrong})
    with pytest.raises(RunError, match=r"config\.json"):
        folder.facts()


def test_facts_fit_a_screen() -> None:
    lines = str(replace(load_data("breast_cancer").facts, space=Space("metres"))).splitlines()
    assert lines[0] == "breast_cancer: table, 30"
    assert any("'mean radius'" in line and "and 18 more" in line for line in lines)
    assert len(lines) < 10
