"""Classifier two-sample test: level held by any classifier, known accuracies met, differences found."""

import json
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from analysis.stats.classifier_test import CLASSIFIERS, ClassifierTest, classifier_test

PHI = NormalDist().cdf


def test_the_level_holds_where_a_binomial_test_of_all_folds_does_not() -> None:
    """400 repetitions of one distribution. At a level of 0.05 more than 0.05 + 4 SE are rejected in 1 of 30,000 seeds
    at most; the binomial test's rate lies more than 3 SE above the level (measured 0.105): the reason not to use it."""
    tests = [
        classifier_test(*np.random.default_rng(seed).normal(size=(2, 100, 3)), classifier="logistic", seed=seed)
        for seed in range(400)
    ]
    error = (0.05 * 0.95 / 400) ** 0.5
    assert np.mean([test.p_value <= 0.05 for test in tests]) < 0.05 + 4 * error
    naive = [binom.sf(round(200 * test.accuracy) - 1, 200, 0.5) <= 0.05 for test in tests]
    assert np.mean(naive) > 0.05 + 3 * error
    accuracies = np.array([test.accuracy for test in tests])
    assert abs(accuracies.mean() - 0.5) < 4 * accuracies.std() / 20
    # The standard error is an upper bound; the spread of 400 values is known to 3.5 %.
    assert accuracies.std() < (1 + 4 * 0.035) * tests[0].standard_error


@pytest.mark.slow
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_level_holds_for_every_classifier(classifier: str) -> None:
    """200 repetitions; more than 0.05 + 4 SE in 1 of 30,000 seeds at most."""
    rejected = [
        classifier_test(*np.random.default_rng(seed).normal(size=(2, 60, 4)), classifier=classifier, seed=seed).p_value
        <= 0.05
        for seed in range(200)
    ]
    assert np.mean(rejected) < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5


def test_accuracy_meets_that_of_the_best_classifier() -> None:
    """Between N(0, 1) and N(1, 1) it is Phi(1/2), and the total variation distance is 2 Phi(1/2) - 1. Within 4 SE,
    which fails in 1 of 16,000 seeds; the classifier's own loss at 4,000 rows is far below."""
    random = np.random.default_rng(1)
    test = classifier_test(
        random.normal(size=(4000, 1)), 1 + random.normal(size=(4000, 1)), classifier="logistic", seed=1
    )
    assert abs(test.accuracy - PHI(0.5)) < 4 * test.standard_error
    assert abs(test.total_variation - (2 * PHI(0.5) - 1)) < 8 * test.standard_error
    assert test.standard_error == pytest.approx((PHI(0.5) * PHI(-0.5) / 4000) ** 0.5, rel=0.02)


def test_a_wrong_scale_is_found_by_a_classifier_that_can_see_it() -> None:
    """Scale 1.3 for 1 in 5 dimensions, 500 rows each: boosting finds at least 19 of 20 (power 0.95), of which it misses
    in 1 of 100,000 seeds if its power is 0.999 as measured; a linear classifier is blind to it."""
    found = {"boosting": 0, "logistic": 0}
    for seed in range(20):
        random = np.random.default_rng(seed)
        x, y = random.normal(size=(500, 5)), 1.3 * random.normal(size=(500, 5))
        for name in found:
            found[name] += classifier_test(x, y, classifier=name, seed=seed).p_value <= 0.05
    assert found["boosting"] >= 19
    assert found["logistic"] <= 5


def test_a_classifier_that_knows_nothing_and_one_that_knows_everything() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 2)), random.normal(size=(30, 2))
    ignorant = classifier_test(x, y, classifier=DummyClassifier(), seed=0)
    assert (ignorant.accuracy, ignorant.p_value, ignorant.size) == (0.5, 1.0, 30)
    assert "they are not distinguishable" in str(ignorant)
    knowing = classifier_test(x, y + 100, classifier=DecisionTreeClassifier(), num_folds=3, seed=0)
    assert knowing.accuracy == 1
    assert knowing.total_variation == 1
    assert len(knowing.accuracies) == 3
    # Each fold has 10 rows of each sample: one arrangement of 20 over 10 is right, and twice the mean is reported.
    assert knowing.p_value == pytest.approx(2 / 184756)
    assert 0 < knowing.standard_error < 0.1
    assert "a total variation of 1.00 or more apart" in str(knowing)
    assert json.loads(json.dumps(knowing.summary()))["classifier"] == "DecisionTreeClassifier"


def test_the_same_seed_gives_the_same_test() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50, 2, 2))

    def run(seed: int) -> ClassifierTest:
        return classifier_test(x, y, classifier="mlp", seed=seed)

    np.testing.assert_array_equal(run(1).accuracies, run(1).accuracies)
    assert (run(1).accuracies != run(2).accuracies).any()


def test_bad_input() -> None:
    x = np.zeros((30, 2))
    with pytest.raises(ValueError, match="unknown classifier 'forest'; choose from logistic, boosting, mlp"):
        classifier_test(x, x, classifier="forest", seed=0)
    with pytest.raises(ValueError, match="2 folds of 10 rows of each sample required, got 2 folds of 19 rows"):
        classifier_test(x, x[:19], seed=0)
    with pytest.raises(ValueError, match="got 1 folds of 30 rows"):
        classifier_test(x, x, num_folds=1, seed=0)
