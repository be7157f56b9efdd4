"""Observation spaces: text that is read again, and compared by what it says."""

import json
import pickle

import pytest

from vae_pyro.data.observation import DRAWN, GIVEN, THRESHOLDED, Space, SpaceKind

COLUMNS = "columns of a table: probability of 2 count"
SPACES = {
    SpaceKind.GIVEN: (GIVEN, "the values as given"),
    SpaceKind.STORED: (Space.scaled(None), "the stored values"),
    SpaceKind.SCALED: (Space.scaled(255.0), "stored values / 255"),
    SpaceKind.DEQUANTIZED: (Space.dequantized(256.0), "(stored values + uniform noise) / 256"),
    SpaceKind.DRAWN: (DRAWN, "0/1, one draw of Bernoulli(intensity)"),
    SpaceKind.THRESHOLDED: (THRESHOLDED, "0/1, intensity at least half"),
    SpaceKind.COLUMNS: (Space(COLUMNS), COLUMNS),
    SpaceKind.NAMED: (Space("metres"), "metres"),
}


@pytest.mark.parametrize("kind", SpaceKind)
def test_a_space_is_its_text_and_is_read_again(kind: SpaceKind) -> None:
    space, text = SPACES[kind]
    assert (space.kind, str(space)) == (kind, text)
    assert type(str(space)) is str
    for again in (Space(text), Space(json.loads(json.dumps([space]))[0]), pickle.loads(pickle.dumps(space))):
        assert (again.kind, again.divisor, again) == (space.kind, space.divisor, space)
        assert hash(again) == hash(space)
    for other, (different, words) in SPACES.items():
        if other != kind:
            assert space != different
            assert space != words
            assert words != space


def test_spaces_are_equal_where_their_numbers_are() -> None:
    assert Space("stored values / 16") == Space("stored values / 16.0") == "stored values / 16"
    assert Space("stored values / 16") != Space("stored values / 255")
    assert (Space("stored values / 16").divisor, Space("(stored values + uniform noise) / 17").divisor) == (16.0, 17.0)
    assert Space.dequantized(None) != Space.dequantized(17.0)
    assert Space("stored values / many").kind == SpaceKind.NAMED
    assert Space("columns of a table: probability of 1 count") != SPACES[SpaceKind.COLUMNS][0]
    assert Space("metres") != Space("feet")


def test_arrays_are_compatible_with_every_space() -> None:
    assert GIVEN.compatible(DRAWN)
    assert DRAWN.compatible("the values as given")
    assert DRAWN.compatible(DRAWN)
    assert not DRAWN.compatible(THRESHOLDED)
