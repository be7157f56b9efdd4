"""A linear probe: how well a linear classifier predicts labels from codes, beside x itself."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.latent.structure.codes import checked_codes, some_rows
from analysis.results.result import Result
from analysis.results.verdict import Outcome, Verdict
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.means import mean_and_error, standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Result):
    """How well a linear classifier reads the labels from the codes, by cross-validation.

    Attributes:
        right: whether each datum was classified rightly by the folds that it was held out of, ``(datum,)``.
        baseline: the same for the most frequent label of those folds.
        raw: the same for a probe of x itself; ``None`` where x was not given.
        classes: labels that there are.
        converged: whether the fits reached their optimum.
    """

    right: Array
    baseline: Array
    raw: Array | None
    classes: Array
    converged: bool

    @property
    def accuracy(self) -> float:
        """Share of data classified rightly."""
        return float(self.right.mean())

    @property
    def accuracy_se(self) -> float:
        """Standard error of `accuracy` over data; that of other training folds is not in it."""
        return standard_error(self.right)

    @property
    def majority(self) -> float:
        """Accuracy of the most frequent label."""
        return float(self.baseline.mean())

    @property
    def raw_accuracy(self) -> float | None:
        """Accuracy of the probe of x."""
        return None if self.raw is None else float(self.raw.mean())

    def difference(self, other: Array) -> tuple[float, float]:
        """`accuracy` less that of ``other``, and its standard error over the same data."""
        return mean_and_error(self.right.astype(np.float64) - other)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the codes are informative of the labels, and whether they lost information that x has."""
        gain, gain_se = self.difference(self.baseline)
        known: Outcome = "pass" if gain > 3 * gain_se else "fail"
        found = [
            Verdict(
                question="Are the codes informative of the labels?",
                value=self.accuracy,
                error=self.accuracy_se,
                unit="",
                threshold=f"above {self.majority:.3f} by 3 standard errors of the difference",
                source="convention: the most frequent label, which needs no codes",
                outcome=known,
                remedy="look at the active latents: the posterior may have collapsed",
                name="probe",
            )
        ]
        if self.raw is not None:
            lost, lost_se = self.difference(self.raw)
            kept: Outcome = "pass" if lost > -3 * lost_se or lost >= 0 else "warn"
            found.append(
                Verdict(
                    question="Do the codes keep the information that a linear probe extracts from x?",
                    value=lost,
                    error=lost_se,
                    unit="accuracy",
                    threshold="not below 0 by more than 3 standard errors",
                    source="convention: the same probe of x on the same folds",
                    outcome=kept,
                    remedy="more latents, or a smaller weight of the KL, would keep more",
                    name="probe_raw",
                )
            )
        return tuple(found)

    def __str__(self) -> str:
        gain, gain_se = self.difference(self.baseline)
        said = "informative of the labels" if gain > 3 * gain_se else "not informative of the labels"
        text = (
            f"linear probe of {len(self.classes)} labels over {len(self.right):,} data\n"
            f"  accuracy {self.accuracy:.3f} ± {self.accuracy_se:.3f}, most frequent label {self.majority:.3f}: {said}"
        )
        if self.raw is not None:
            lost, lost_se = self.difference(self.raw)
            text += f"\n  x itself {self.raw_accuracy:.3f}; codes less x {lost:+.3f} ± {lost_se:.3f}"
        return text if self.converged else f"{text}\n  some fits stopped before their optimum"

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a classifier: accuracy and its standard error over data."""
        import pandas as pd

        shares = {"codes": self.right, "most frequent label": self.baseline} | (
            {} if self.raw is None else {"x": self.raw}
        )
        rows = {name: (share.mean(), standard_error(share)) for name, share in shares.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["accuracy", "accuracy_se"]).rename_axis("probe of")

    def plot(self) -> "Figure":
        """Accuracies with their standard errors."""
        from analysis.plotting import plot_bars

        frame = self.to_dataframe()
        return plot_bars(list(frame.index), frame["accuracy"], frame["accuracy_se"], xlabel="accuracy, ± se")

    def summary(self) -> dict[str, Any]:
        """Scalars in JSON's types; ``None`` where there is none."""
        lost, lost_se = (None, None) if self.raw is None else self.difference(self.raw)
        return {
            "accuracy": self.accuracy,
            "accuracy_se": self.accuracy_se,
            "majority": self.majority,
            "raw_accuracy": self.raw_accuracy,
            "codes_less_raw": lost,
            "codes_less_raw_se": lost_se,
            "classes": len(self.classes),
            "converged": self.converged,
            "n": len(self.right),
        }


def probe(
    codes: Any, labels: Any, *, raw: Any = None, num_folds: int = 5, max_data: int = 3000, seed: int = 0
) -> Probe:
    """Logistic regression from codes to labels, by stratified cross-validation, beside baselines on the same folds.

    Codes are standardised, and the weights have scikit-learn's default L2 penalty.

    Args:
        codes: ``(datum, latent)``.
        labels: ``(datum,)``; classes with fewer data than folds are left out.
        raw: x itself, ``(datum, *x_shape)``, for a probe of the same kind.
        num_folds: at least 2.
        max_data: data, drawn at random, where there are more.
        seed: of the draws and the folds.

    Raises:
        ValueError: wrong shapes, values that are not finite, or fewer than 2 classes with enough data.

    References:
        Alain & Bengio 2017, Understanding intermediate layers using linear classifier probes. arXiv:1610.01644
    """
    from sklearn.model_selection import StratifiedKFold

    codes, labels = checked_codes(codes), np.asarray(labels)
    if labels.shape != (len(codes),):
        raise ValueError(f"labels of shape ({len(codes)},) required, got {labels.shape}")
    if num_folds < 2:
        raise ValueError(f"num_folds is at least 2, got {num_folds}")
    index = some_rows(len(codes), max_data, seed, 4)
    values, counts = np.unique(labels[index], return_counts=True)
    classes = values[counts >= num_folds]
    if len(classes) < 2:
        raise ValueError(f"a probe requires 2 classes with at least {num_folds} data each, got {len(classes)}")
    index = index[np.isin(labels[index], classes)]
    y = labels[index]
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=derive_seed(seed, 5) % 2**32)
    splits = list(folds.split(codes[index], y))
    right, converged = _classify(codes[index], y, splits)
    baseline = np.zeros(len(y))
    for kept, held_out in splits:
        present, number = np.unique(y[kept], return_counts=True)
        baseline[held_out] = y[held_out] == present[number.argmax()]
    of_raw = None
    if raw is not None:
        x = np.asarray(raw)
        if len(x) != len(codes):
            raise ValueError(f"raw data of the same {len(codes)} data required, got {len(x)}")
        of_raw, also = _classify(checked_codes(x[index].reshape(len(index), -1)), y, splits)
        converged = converged and also
    return Probe(right, baseline, of_raw, classes, converged)


def _classify(x: Array, y: Array, splits: list[tuple[Array, Array]]) -> tuple[Array, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right, converged = np.zeros(len(y)), True
    for kept, held_out in splits:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            classifier.fit(x[kept], y[kept])
        converged = converged and not any(issubclass(item.category, ConvergenceWarning) for item in caught)
        right[held_out] = classifier.predict(x[held_out]) == y[held_out]
    return right, converged
