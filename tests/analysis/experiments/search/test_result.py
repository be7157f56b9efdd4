"""Importance of the settings of a search."""

import optuna
import pytest

from analysis.experiments.search.result import importances
from tests.analysis.experiments.examples import SPACE_BY_HAND, by_hand


def test_importance_is_that_of_what_matters_and_sums_to_one() -> None:
    """Value 4 a + b over the unit square: a explains 16 / 17 of the variance, c, a choice, nothing."""
    level = optuna.logging.get_verbosity()
    search = by_hand(lambda latent_dim, lr, beta: 4 * lr + beta, SPACE_BY_HAND)
    shares = importances(search, seed=0)
    assert list(shares) == ["optimizer.lr", "objective.beta", "latent_dim"]
    assert sum(share.value for share in shares.values()) == pytest.approx(1)
    assert shares["optimizer.lr"].value > 0.8
    assert shares["latent_dim"].value < 0.05
    assert optuna.logging.get_verbosity() == level
    other = importances(by_hand(lambda latent_dim, lr, beta: lr + 4 * beta, SPACE_BY_HAND, 20))
    assert next(iter(other)) == "objective.beta"


def test_importance_is_not_made_up_from_too_little() -> None:
    assert importances(by_hand(lambda lr: lr, ["optimizer.lr=0.1..1"], 5)) == {}
    assert importances(by_hand(lambda lr: 1.0, ["optimizer.lr=0.1..1"], 20)) == {}
