"""Targets and measures: the texts that stored files hold, and what is compared."""

import copy
import json
import pickle

import pytest

from vae_pyro.densities.measure import Measure, Target, Variables


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target(Variables.X), "x"),
        (Target(Variables.X_GIVEN_Y), "x given y"),
        (Target(Variables.X_AND_Y), "x and y"),
        (Target(Variables.X_AND_MASK), "x and the mask"),
        (Target(Variables.X_AND_SOME_Y, known=1_200, data=60_000), "x, and y of 1,200 in 60,000 data"),
    ],
)
def test_the_text_of_a_target_is_read_back(target: Target, text: str) -> None:
    read = Target.parse(text)
    assert target == text == str(target) == json.loads(json.dumps({"of": target}))["of"]
    assert (read.variables, read.known, read.data) == (target.variables, target.known, target.data)
    for copied in (copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        assert copied == target
        assert copied.variables is target.variables
    with pytest.raises(AttributeError, match="not changed"):
        target.known = 3


def test_targets_with_other_counts_are_other_targets() -> None:
    targets = [Target.with_classes(data=10, known=known) for known in (0, 3, 4, 10)]
    assert len(set(targets)) == 4
    texts = ["x", "x, and y of 3 in 10 data", "x, and y of 4 in 10 data", "x and y"]
    assert [str(target) for target in targets] == texts


def test_what_is_no_target_is_refused() -> None:
    for text in ("", "y", "x, and y of some data", "x, and y of 3 in 2 data"):
        with pytest.raises(ValueError, match="target"):
            Target.parse(text)
    for known, data in ((0, 0), (3, 3), (4, 3)):
        with pytest.raises(ValueError, match="0 < known < data"):
            Target(Variables.X_AND_SOME_Y, known=known, data=data)
    with pytest.raises(ValueError, match="counts are for"):
        Target(Variables.X, data=5)


def test_measures_are_the_texts_that_files_hold() -> None:
    texts = ["probability", "density", "probability given the total"]
    assert [json.loads(json.dumps(Measure(text))) for text in texts] == texts
    assert Measure.DENSITY == "density"
