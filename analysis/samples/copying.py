"""Does the model copy its training data? Distances to the training data, of generated and of held-out data."""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.mann_whitney import mann_whitney
from analysis.stats.nearest import nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# One false alarm in a thousand for each question: a report asks many.
_LEVEL = 1e-3
_CELL_ROWS = 20


@dataclass(frozen=True, eq=False, repr=False)
class DataCopying(Result):
    """Whether generated data are nearer to the training data than held-out data are.

    Attributes:
        generated_distance: of each generated datum to the nearest training datum, shape ``(generated,)``.
        held_out_distance: likewise of each held-out datum, shape ``(held_out,)``.
        nearest_train: row of the training datum nearest to each generated one, shape ``(generated,)``.
        z: Mann-Whitney statistic of all distances; negative where generated data are nearer.
        cell_z: the same within each cell, shape ``(cell,)``; NaN where a cell holds too few data.
        cell_probability: P(a generated datum is farther than a held-out one) within each cell, ``(cell,)``.
        cell_probability_se: its standard error, ``(cell,)``.
        cell_weight: share of held-out data in each cell, ``(cell,)``.
    """

    generated_distance: Array
    held_out_distance: Array
    nearest_train: Array
    z: float
    cell_z: Array
    cell_probability: Array
    cell_probability_se: Array
    cell_weight: Array

    @property
    def _weight(self) -> Array:
        weight = np.where(np.isfinite(self.cell_z), self.cell_weight, 0.0)
        return weight / weight.sum()

    @property
    def copying(self) -> float:
        """C_T: z averaged over cells; far below 0 where training data are copied, far above where they are underfit."""
        return float((self._weight * np.nan_to_num(self.cell_z)).sum())

    @property
    def copying_se(self) -> float:
        """Standard deviation of `copying` under equality, where each cell's z is standard normal."""
        return float(np.sqrt((self._weight**2).sum()))

    @property
    def share(self) -> float:
        """``1 - 2 P(generated farther)``: the share of copies, if all others were as far as held-out data."""
        return 1 - 2 * float((self._weight * np.nan_to_num(self.cell_probability)).sum())

    @property
    def share_se(self) -> float:
        """Standard error of `share`."""
        return 2 * float(np.sqrt((self._weight**2 * np.nan_to_num(self.cell_probability_se) ** 2).sum()))

    @property
    def p_value(self) -> float:
        """Of distances as large as the held-out ones, against smaller ones."""
        return erfc(-self.copying / self.copying_se / sqrt(2)) / 2

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One row: does the model copy its training data?"""
        outcome: Outcome = "pass"
        advice = "the features decide what counts as a copy"
        if self.p_value < _LEVEL:
            outcome = "fail" if self.share - 2 * self.share_se > 0.5 else "warn"
            advice = (
                "look at the nearest training data of the nearest samples: if they are copies, stop earlier or lower "
                "the decoder's capacity; if they are merely smoother, the model draws too close to averages"
            )
        return (
            Verdict(
                "Does the model copy its training data?",
                self.copying,
                self.copying_se,
                "",
                f"C_T not below 0 (p at least {_LEVEL:g}); fails where half of the samples look copied",
                "Meehan et al. 2020, arXiv:2004.05675; the share by convention: most samples would be copies",
                outcome,
                advice,
                "data_copying",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "copying": self.copying,
            "copying_se": self.copying_se,
            "p_value": self.p_value,
            "z": self.z,
            "share": self.share,
            "share_se": self.share_se,
            "num_cells": len(self.cell_z),
            "cells_used": int(np.isfinite(self.cell_z).sum()),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a cell: its weight, statistic, and probability that a generated datum is farther."""
        import pandas as pd

        columns = {
            "weight": self.cell_weight,
            "z": self.cell_z,
            "p_farther": self.cell_probability,
            "p_farther_se": self.cell_probability_se,
        }
        return pd.DataFrame(columns).rename_axis("cell")

    def plot(self) -> "Figure":
        """Distances to the nearest training datum, of held-out and of generated data."""
        from analysis.plotting import plot_scores

        names = ("held-out data", "generated data")
        return plot_scores(self.held_out_distance, self.generated_distance, names=names, xlabel="distance")

    def __str__(self) -> str:
        if self.p_value < _LEVEL:
            reading = f"generated data are nearer to the training data, as if {self.share:.0%} were copies"
        elif self.copying > 3.1 * self.copying_se:
            reading = "generated data are farther from the training data than held-out data: underfit, not copied"
        else:
            reading = "generated data are no nearer to the training data than held-out data"
        text = (
            f"copying C_T {self.copying:.2f} ± {self.copying_se:.2f} ({np.isfinite(self.cell_z).sum()} cells; "
            f"below 0 is copying), p = {self.p_value:.2g}\n  {reading}"
        )
        return screen(text.splitlines())


def data_copying(
    generated: Array, held_out: Array, train: Array, *, num_cells: int | None = None, seed: int
) -> DataCopying:
    """Three-sample test of data-copying: distances of generated and of held-out data to the training data.

    If the model draws from the distribution of the data, the two sets of distances are alike. Within each cell (k-means
    of the training data) a Mann-Whitney test compares them, so that more mass in a dense region is not taken for
    copying.

    Args:
        generated: shape ``(m, *event)``, drawn from the model.
        held_out: shape ``(n, *event)``, not trained on.
        train: shape ``(t, *event)``, what the model was trained on. Memory is that of the arrays and one block.
        num_cells: regions; ``None`` takes one for each 50 held-out data, at most 10. Those with fewer than 20 generated
            or held-out data are left out.
        seed: of k-means.

    Raises:
        ValueError: shapes that differ, no rows, or fewer than one cell.

    References:
        Meehan, Chaudhuri & Dasgupta 2020, A non-parametric test to detect data-copying in generative models, AISTATS
        (Z_U and C_T). arXiv:2004.05675
    """
    if not (generated.shape[1:] == held_out.shape[1:] == train.shape[1:]):
        raise ValueError(f"events differ: {generated.shape[1:]}, {held_out.shape[1:]}, {train.shape[1:]}")
    if min(len(generated), len(held_out), len(train)) < 1:
        raise ValueError(
            f"no rows to compare: {len(generated)} generated, {len(held_out)} held out, {len(train)} for training"
        )
    if num_cells is None:
        num_cells = max(min(10, len(held_out) // 50), 1)
    if num_cells < 1:
        raise ValueError(f"num_cells must be at least 1, got {num_cells}")
    generated, held_out, train = (np.asarray(x).reshape(len(x), -1) for x in (generated, held_out, train))
    generated_distance, nearest_train = nearest(generated, train)
    held_out_distance, _ = nearest(held_out, train)
    generated_cell, held_out_cell = np.zeros(len(generated), int), np.zeros(len(held_out), int)
    if num_cells > 1:
        from sklearn.cluster import KMeans

        random = np.random.default_rng(seed)
        some = train[random.permutation(len(train))[:10_000]].astype(np.float64)
        num_cells = min(num_cells, len(np.unique(some, axis=0)))
        means = KMeans(num_cells, n_init=1, random_state=int(random.integers(2**31))).fit(some)
        generated_cell = means.predict(generated.astype(np.float64))
        held_out_cell = means.predict(held_out.astype(np.float64))
    cells = np.full((num_cells, 3), np.nan)
    weight = np.bincount(held_out_cell, minlength=num_cells) / len(held_out)
    for cell in range(num_cells):
        first, second = generated_distance[generated_cell == cell], held_out_distance[held_out_cell == cell]
        if num_cells == 1 or min(len(first), len(second)) >= _CELL_ROWS:
            cells[cell] = mann_whitney(first, second)
    if np.isnan(cells).all():
        # A model that puts its mass where no data are: one cell then, where the distances show it.
        cells, weight = np.array([mann_whitney(generated_distance, held_out_distance)]), np.ones(1)
    probability, error, z = cells.T
    return DataCopying(
        generated_distance,
        held_out_distance,
        nearest_train,
        mann_whitney(generated_distance, held_out_distance)[2],
        z,
        probability,
        error,
        weight,
    )
