"""Classifier two-sample test: an accuracy that bounds the distance of two samples, and a test of equality."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from analysis.stats.fidelity import as_rows

type Array = np.ndarray[Any, Any]


def _logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, early_stopping=False, random_state=seed)


def _mlp(seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), MLPClassifier((64, 64), alpha=1.0, max_iter=100, random_state=seed))


CLASSIFIERS: dict[str, Callable[[int], Any]] = {"logistic": _logistic, "boosting": _boosting, "mlp": _mlp}


@dataclass(frozen=True)
class ClassifierTest:
    """How well a classifier distinguishes two samples on data that it was not trained on.

    Attributes:
        accuracies: share classified correctly in each fold, shape ``(fold,)``; 1/2 on average for one distribution.
        p_value: of equal distributions; at most its nominal level whatever the classifier.
        classifier: its name.
        size: rows of each sample that were used.
    """

    accuracies: Array
    p_value: float
    classifier: str
    size: int

    @property
    def accuracy(self) -> float:
        """Mean over folds."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Of `accuracy`: that of a single fold, an upper bound, since the folds' errors are dependent."""
        rate = min(max(self.accuracy, 1 / (2 * self.size)), 1 - 1 / (2 * self.size))
        return sqrt(rate * (1 - rate) / (2 * self.size / len(self.accuracies)))

    @property
    def total_variation(self) -> float:
        """Least total variation distance that explains `accuracy`: the best classifier reaches (1 + TV) / 2."""
        return max(2 * self.accuracy - 1, 0.0)

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "accuracy": self.accuracy,
            "accuracy_se": self.standard_error,
            "p_value": self.p_value,
            "total_variation_at_least": self.total_variation,
            "classifier": self.classifier,
            "size": self.size,
        }

    def __str__(self) -> str:
        verdict = (
            "they are not distinguishable"
            if self.p_value > 0.05
            else f"they lie a total variation of {self.total_variation:.2f} or more apart"
        )
        return (
            f"classifier ({self.classifier}) classifies {self.accuracy:.1%} ± {self.standard_error:.1%} correctly, "
            f"p = {self.p_value:.2g}: {verdict}"
        )


def classifier_test(
    x: Array, y: Array, *, classifier: str | Any = "boosting", num_folds: int = 2, seed: int
) -> ClassifierTest:
    """Classifier two-sample test: train on some folds, classify the rows of the other, for each fold in turn.

    Within a fold the test is exact: given the training folds and which rows are in this one, its labels are a random
    arrangement, and the number classified correctly follows a hypergeometric law. Accuracies of different folds are
    dependent (the test labels of one are training labels of the other), so that a binomial test of all folds together
    rejects too often; the p-values are joined by twice their mean, which holds under any dependence.

    Args:
        x: shape ``(m, *event)``.
        y: shape ``(n, *event)``; the larger sample is cut to the size of the other, at random.
        classifier: a name of `CLASSIFIERS`, or an unfitted scikit-learn classifier. ``logistic`` sees differences of
            means alone.
        num_folds: two keep most power for the p-value; more train the classifier on more data.
        seed: of folds and classifier.

    Raises:
        ValueError: an unknown name, fewer than two folds, or fewer than 10 rows a fold.

    References:
        Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests, sec. 3. arXiv:1610.06545
        Noirhomme et al. 2014, Biased binomial assessment of cross-validated estimation of classification accuracies,
        NeuroImage: Clinical 4, 687-694 (why not binomial). doi:10.1016/j.nicl.2014.04.004
        Vovk & Wang 2020, Combining p-values via averaging, Biometrika 107, sec. 1 (twice the mean). arXiv:1212.4966
    """
    x, y = as_rows(x, y)
    size = min(len(x), len(y))
    if isinstance(classifier, str) and classifier not in CLASSIFIERS:
        raise ValueError(f"unknown classifier {classifier!r}; choose from {', '.join(CLASSIFIERS)}, or pass one")
    if num_folds < 2 or size < 10 * num_folds:
        raise ValueError(f"at least 2 folds of 10 rows of each sample required, got {num_folds} folds of {size} rows")
    from scipy.stats import hypergeom
    from sklearn.base import clone

    random = np.random.default_rng(seed)
    x, y = x[random.permutation(len(x))[:size]], y[random.permutation(len(y))[:size]]
    fold = np.arange(size) % num_folds
    accuracies, p_values = np.empty(num_folds), np.empty(num_folds)
    for k in range(num_folds):
        train, test = fold != k, fold == k
        fold_seed = int(random.integers(2**31))
        model = CLASSIFIERS[classifier](fold_seed) if isinstance(classifier, str) else clone(classifier)
        # Left at None, they would draw from NumPy's global generator.
        unseeded = [
            name for name, value in model.get_params().items() if name.endswith("random_state") and value is None
        ]
        model.set_params(**dict.fromkeys(unseeded, fold_seed))
        with warnings.catch_warnings():
            # The number of iterations is part of the classifier's definition: a test of any level may stop early.
            warnings.filterwarnings("ignore", module="sklearn", message=".*(converge|Maximum iterations)")
            model.fit(np.concatenate([x[train], y[train]]), np.repeat([0, 1], train.sum()))
        of_x, of_y = model.predict(x[test]) == 1, model.predict(y[test]) == 1
        here = int(test.sum())
        accuracies[k] = (here - of_x.sum() + of_y.sum()) / (2 * here)
        p_values[k] = hypergeom.sf(of_y.sum() - 1, 2 * here, here, of_x.sum() + of_y.sum())
    name = classifier if isinstance(classifier, str) else type(classifier).__name__
    return ClassifierTest(accuracies, min(1.0, 2 * float(p_values.mean())), name, size)
