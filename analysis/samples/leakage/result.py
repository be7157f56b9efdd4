"""The result of looking for test data among the training data."""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# One false alarm in a thousand for each question: a report asks many.
_LEVEL = 1e-3
# Barz & Denzler 2020 found 3.3 % and 10 % of the CIFAR test sets to be copies, and called that a bias.
_FEW, _MANY = 0.01, 0.10


@dataclass(frozen=True, eq=False, repr=False)
class Leakage(Result):
    """Whether test data are among the training data, identical or nearly so.

    Rows that coincide by chance, as in small tables, do so among the training data too. For distances, a part of the
    training data is held in: set aside, and compared with the rest of the training data as the test data are.

    Attributes:
        identical: which test data equal a training datum, shape ``(test,)``.
        identical_expected: share of training data that equal another training datum.
        identical_p: p-value of no more identical test data than if test data had been drawn from all data at random.
        test_distance: of some test data to the rest of the training data, shape ``(query,)``.
        held_in_distance: of held-in data to the rest, shape ``(held_in,)``.
        test_rows: which test data `test_distance` belongs to, ``(query,)``.
        nearest_rows: which training datum is nearest to each of them, ``(query,)``.
        close: share of these nearer than nearly all held-in data.
        close_expected: what ``close`` is on average for data that are held out.
        close_p: p-value of distances that are not smaller than the held-in ones: of ``close`` and of all of them.
        farther: P(a test datum is farther than a held-in one), 1/2 if held out and alike.
        farther_se: its standard error.
        z: Mann-Whitney statistic of the distances, negative where the test data are nearer.
        compared: in words, what was compared.
    """

    identical: Array
    identical_expected: float
    identical_p: float
    test_distance: Array
    held_in_distance: Array
    test_rows: Array
    nearest_rows: Array
    close: float
    close_expected: float
    close_p: float
    farther: float
    farther_se: float
    z: float
    compared: str

    @property
    def identical_share(self) -> float:
        """Share of all test data that equal a training datum."""
        return float(self.identical.mean())

    @property
    def identical_share_se(self) -> float:
        """Binomial standard error of `identical_share`, as an estimate for another test set."""
        return sqrt(self.identical_share * (1 - self.identical_share) / len(self.identical))

    @property
    def close_se(self) -> float:
        """Standard error of ``close``, of the test data and of the quantile they are compared with."""
        return sqrt(
            self.close * (1 - self.close) / len(self.test_distance)
            + self.close_expected * (1 - self.close_expected) / len(self.held_in_distance)
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Two rows: identical test data, and close ones."""
        identical = _outcome(self.identical_p, self.identical_share - self.identical_expected, _FEW)
        close = _outcome(self.close_p, self.close - self.close_expected, _MANY)
        return (
            Verdict(
                "Are test data among the training data?",
                self.identical_share,
                self.identical_share_se,
                "share of test data",
                f"no more than by chance (p at least {_LEVEL:g}); fails {_FEW:.0%} above the "
                f"{self.identical_expected:.2%} of training data that equal another",
                "Barz & Denzler 2020, arXiv:1902.00423 (3.3 % of copies bias a comparison)",
                identical,
                remedy="remove the identical test data from one of the two sets, and evaluate again",
                name="identical_test_data",
            ),
            Verdict(
                "Are test data near-copies of training data?",
                self.close,
                self.close_se,
                "share of test data",
                f"about {self.close_expected:.2%}, as within the training data (p at least {_LEVEL:g}); "
                f"fails {_MANY:.0%} above",
                "Meehan et al. 2020, arXiv:2004.05675 (distances); the share by convention: a tenth of the test set",
                close,
                remedy="examine the closest pairs: if they are copies, remove them; if not, the test data come "
                "from an easier distribution than the training data",
                name="close_test_data",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "num_test": len(self.identical),
            "num_identical": int(self.identical.sum()),
            "identical_share": self.identical_share,
            "identical_expected": self.identical_expected,
            "identical_p": self.identical_p,
            "close": self.close,
            "close_se": self.close_se,
            "close_expected": self.close_expected,
            "close_p": self.close_p,
            "farther": self.farther,
            "farther_se": self.farther_se,
            "z": self.z,
            "num_distances": [len(self.test_distance), len(self.held_in_distance)],
            "compared": self.compared,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a test datum whose distance was taken: the distance, the nearest training row, and whether equal."""
        import pandas as pd

        columns = {
            "distance": self.test_distance,
            "nearest_train_row": self.nearest_rows,
            "identical": self.identical[self.test_rows],
        }
        return pd.DataFrame(columns, index=pd.Index(self.test_rows, name="test_row"))

    def plot(self) -> "Figure":
        """Distances to the nearest training datum, of held-in and of test data."""
        from analysis.plotting import plot_scores

        names = ("training data set aside", "test data")
        return plot_scores(self.held_in_distance, self.test_distance, names=names, xlabel="distance")

    def __str__(self) -> str:
        reading = {
            "pass": "no sign that test data were trained on",
            "warn": "some test data may have been trained on",
            "fail": "the test data are not held out: estimates on them are not those for new data",
        }[self.outcome]
        shift = "; they are farther off than training data are from each other" if self.z > 4 else ""
        text = (
            f"{int(self.identical.sum()):,} of {len(self.identical):,} test data equal a training datum "
            f"({self.identical_expected:.2%} of the training data equal another, p = {self.identical_p:.2g})\n"
            f"  {self.close:.1%} ± {self.close_se:.1%} are closer than expected of {self.close_expected:.1%} "
            f"(p = {self.close_p:.2g}); P(farther) {self.farther:.3f} ± {self.farther_se:.3f}, z {self.z:.1f}{shift}\n"
            f"  {reading} ({self.compared})"
        )
        return screen(text.splitlines())


def _outcome(p: float, excess: float, limit: float) -> Outcome:
    if p >= _LEVEL:
        return "pass"
    return "fail" if excess > limit else "warn"
