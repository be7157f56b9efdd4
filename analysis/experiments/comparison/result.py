"""The result of a comparison of variants: which predicts held-out data best, by how much, and how certain that is.

Two factors are random: the seeds of the fits and the test data. A difference of two variants is measured once for each
pair of a seed and a datum, and `analysis.stats.crossed` keeps the two sources of error apart. p-values are adjusted for
all pairs of variants, so that the number of variants does not produce a winner by chance.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.experiments.comparison import tables, verdicts
from analysis.experiments.comparison.differences import Difference, adjusted
from analysis.experiments.comparison.estimates import VariantEstimates
from analysis.results.result import Result
from analysis.results.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class ExperimentComparison(Result):
    """Variants on the same test data, the one of the highest mean log p(x) first; all in nats per datum.

    Attributes:
        estimates: of each variant and run.
        references: for each variant the label that it is compared with, ``None`` for a baseline.
        pairs: all pairs; the first of each has the higher mean.
        notes: what was left out and why, in sentences.
    """

    estimates: VariantEstimates
    references: tuple[str | None, ...]
    pairs: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the variants, the highest mean log p(x) first."""
        return self.estimates.labels

    @property
    def winner(self) -> str:
        """Label of the highest mean log p(x); `rivals` say whether it is significantly higher."""
        return self.labels[0]

    @property
    def rivals(self) -> tuple[Difference, ...]:
        """The winner minus each other variant, in the order of `labels`."""
        return tuple(pair for pair in self.pairs if pair.first == self.winner)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Each variant minus the baseline that it is compared with, in the order of `labels`.

        These comparisons were planned before the results were known, and are adjusted as a family of their own; which
        pair is the best is known only afterwards, and `pairs` are adjusted for all of them.
        """
        compared = zip(self.labels, self.references, strict=True)
        return adjusted([self.difference(label, reference) for label, reference in compared if reference is not None])

    def difference(self, first: str, second: str) -> Difference:
        """One variant minus another.

        Raises:
            KeyError: there is no such pair.
        """
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.first, pair.second) == (second, first):
                return pair.reversed()
        raise KeyError(f"no pair {first!r}, {second!r}; the variants are {', '.join(self.labels)}")

    @property
    def headline(self) -> str:
        """The winner, its lead and the certainty of both, in a few sentences."""
        return verdicts.headline(self)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Significance of the winner's lead over each variant, number of seeds, reliability of log p(x)."""
        return verdicts.verdicts(self)

    def summary(self) -> dict[str, Any]:
        """All estimates but those of single data; JSON-able."""
        return tables.summary(self)

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each variant: mean over seeds and its standard error (``_se``) of every estimate."""
        import pandas as pd

        return pd.DataFrame(tables.variant_rows(self)).set_index("variant")

    def to_xarray(self) -> "xr.DataTree":
        """All estimates with their dimensions, see `analysis.experiments.comparison.tables.tree`."""
        return tables.tree(self)

    def plot(self) -> "Figure":
        """log p(x) of every variant and its difference from the baseline."""
        from analysis.experiments.comparison.page import variants_figure

        return variants_figure(self)

    def __str__(self) -> str:
        return tables.text(self)

    def __repr__(self) -> str:
        return f"<ExperimentComparison: {len(self.labels)} variants, {self.winner!r:.60} first>"
