"""The result of comparing generated with real data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from analysis.samples.copying import DataCopying
from analysis.stats.classifier_test import ClassifierTest
from analysis.stats.fidelity import Frechet, Neighbourhoods
from analysis.stats.mmd import MMD

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

NEIGHBOUR_ROWS = 2000
# Thresholds of warning and failure: accuracy of a classifier above, share of the coverage of equal distributions below.
_ACCURACY = (0.9, 0.975)
_COVERAGE = (0.5, 0.25)


@dataclass(frozen=True, eq=False, repr=False)
class SampleComparison(Result):
    """Generated beside real data, by several measures on the same features.

    Attributes:
        classifier: how well a classifier distinguishes them.
        discrepancy: kernel maximum mean discrepancy with its permutation test.
        neighbourhoods: precision, recall, density, coverage, of equally many rows of both samples, the first of each.
        frechet: distance of Gaussians with the same moments; the FID only where the features are Inception's.
        copying: whether the model copies its training data; ``None`` where these were not given.
        features: in words, what was compared.
        real_rows: which of the real data were compared, in this order; ``neighbourhoods.covered`` is of the first.
        generated: the generated data that were compared, ``(generated, *x_shape)``, in the order of
            ``copying.generated_distance``; ``neighbourhoods.realistic`` is of the first.
        plane_real: real data on the first two principal components of the features of both, ``(real, 2)``.
        plane_generated: generated data likewise, ``(generated, 2)``.
    """

    classifier: ClassifierTest
    discrepancy: MMD
    neighbourhoods: Neighbourhoods
    frechet: Frechet
    copying: DataCopying | None
    features: str
    real_rows: Array
    generated: Array
    plane_real: Array
    plane_generated: Array

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Distinguishable, covered, copied: two rows, or three where the training data were given.

        No model is exact, and enough data distinguish any model from the data: the thresholds are sizes of a
        difference, beyond its error, and the p-values are in `summary`.
        """
        accuracy, error = self.classifier.accuracy, self.classifier.standard_error
        apart = _beyond(accuracy - 2 * error, *_ACCURACY)
        around = self.neighbourhoods
        known = (
            "no difference is seen at these sizes"
            if self.classifier.p_value > 0.05
            else f"they differ nevertheless (p = {self.classifier.p_value:.2g}), by a total variation of "
            f"{self.classifier.total_variation:.2f} or more"
        )
        relative = (around.coverage + 2 * float(around.errors[3])) / around.expected_coverage
        covered = _beyond(-relative, *(-share for share in _COVERAGE))
        rows = (
            Verdict(
                "Can a classifier distinguish generated from real data?",
                accuracy,
                error,
                "share classified correctly",
                f"at most {_ACCURACY[0]:.1%} beyond its error; fails above {_ACCURACY[1]:.1%}",
                "Lopez-Paz & Oquab 2017, arXiv:1610.06545; by convention: accuracy a means a total variation of 2a - 1 "
                f"or more, here {2 * _ACCURACY[0] - 1:.2g} and {2 * _ACCURACY[1] - 1:.2g}",
                apart,
                known
                if apart == "pass"
                else "compare samples with data, then check the likelihood (its noise and scale) and the aggregate "
                "posterior against the prior",
                "classifier_test",
            ),
            Verdict(
                "Do generated data cover all kinds of real data?",
                around.coverage,
                float(around.errors[3]),
                "share of real data covered",
                f"at least {_COVERAGE[0] * around.expected_coverage:.2f} within its error, half of the "
                f"{around.expected_coverage:.3f} of equal distributions; fails below a quarter",
                "Naeem et al. 2020, sec. 3.3, arXiv:2002.09797 (expectation); half and a quarter by convention, at "
                f"{NEIGHBOUR_ROWS:,} rows or fewer",
                covered,
                remedy="look at the real data that are not covered: if they are of one kind, enlarge the latent space "
                "or the prior; if nearly none is covered, the likelihood's noise is too large",
                name="coverage",
            ),
        )
        return rows if self.copying is None else rows + self.copying.verdicts

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, by measure."""
        return {
            "features": self.features,
            "num_real": len(self.real_rows),
            "num_generated": len(self.generated),
            "classifier": self.classifier.summary(),
            "mmd": self.discrepancy.summary(),
            "neighbourhoods": self.neighbourhoods.summary(),
            "frechet": self.frechet.summary(),
            "copying": None if self.copying is None else self.copying.summary(),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a measure: estimate, standard error, and p-value of equal distributions where there is one."""
        import pandas as pd

        around, gap = self.neighbourhoods, self.discrepancy
        rows = {
            "classifier accuracy": (self.classifier.accuracy, self.classifier.standard_error, self.classifier.p_value),
            "MMD squared": (gap.value, gap.standard_error, gap.p_value),
            "Fréchet distance": (self.frechet.corrected, self.frechet.standard_error, None),
        }
        for name, error in zip(("precision", "recall", "density", "coverage"), around.errors, strict=True):
            rows[name] = (getattr(around, name), float(error), None)
        if self.copying is not None:
            rows["copying C_T"] = (self.copying.copying, self.copying.copying_se, self.copying.p_value)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "se", "p_value"]).rename_axis(
            "measure"
        )

    def plot(self) -> "Figure":
        """Real and generated data on the first two principal components of their features."""
        from analysis.samples.generated.plot import plot_samples

        return plot_samples(self.plane_real, self.plane_generated)

    def __str__(self) -> str:
        d = self.discrepancy
        lines = [
            f"{len(self.generated):,} generated against {len(self.real_rows):,} real data on {self.features}",
            str(self.classifier),
            f"MMD^2 {d.value:.3g} ± {d.standard_error:.2g}, p = {d.p_value:.3f} ± {d.p_value_mcse:.3f}; {self.frechet}",
            str(self.neighbourhoods),
        ]
        if self.copying is not None:
            lines.append(str(self.copying).replace("\n ", ";"))
        return screen("\n  ".join(lines).splitlines())


def _beyond(value: float, warn: float, fail: float) -> Outcome:
    return "fail" if value > fail else "warn" if value > warn else "pass"
